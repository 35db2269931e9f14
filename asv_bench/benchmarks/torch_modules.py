"""A step on the parameters of a torch module: rmsprop in their memory, torch's own optimizers, and the limit.

The pairs are made anew in each step, which is part of its time, and so are all gradients, which is not.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.scenarios import SMOKE

MODULES = ("ResNet-50", "1,000 × 100")
CONTENDERS = ("limit", "rmsprop", "torch", "torch foreach")
ROUNDS, STEPS = (1, 1) if SMOKE else (15, 7)


def setup_cache():
    """Return the median seconds of a step by module and contender."""
    times = {}
    for module in MODULES:
        command = [sys.executable, "-m", "benchmarks.torch_modules", module]
        output = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE).stdout
        times[module] = json.loads(output)
    return times


setup_cache.timeout = 1800


class Module:
    """Time of a step; NaN where torch is not installed."""

    params = (MODULES, CONTENDERS)
    param_names = ("module", "contender")
    unit = "seconds"

    def track_step(self, times, module, contender):
        return times[module].get(contender, math.nan)


class ModuleRatio:
    """Time of a step of rmsprop over the limit, and of torch's foreach over that of rmsprop."""

    params = MODULES
    param_names = ("module",)
    unit = "ratio"

    def track_ratio_to_limit(self, times, module):
        return times[module].get("rmsprop", math.nan) / times[module].get("limit", math.nan)

    def track_foreach_to_rmsprop(self, times, module):
        return times[module].get("torch foreach", math.nan) / times[module].get("rmsprop", math.nan)


def shapes_of(module):
    from benchmarks.architectures import resnet50_shapes
    from benchmarks.scenarios import SMALL_ARRAYS

    if module == "ResNet-50":
        return resnet50_shapes(width=4, classes=10) if SMOKE else resnet50_shapes()
    return SMALL_ARRAYS.shapes


def race(module):
    """Return the median seconds of a step of each contender, which take turns on the same parameters."""
    import torch

    from benchmarks.contenders import EPSILON, LEARNING_RATE, RHO
    from benchmarks.limit import streaming
    from rmsprop import RMSprop

    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes_of(module)]
    fresh(torch, parameters)
    ours = RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON)
    loops = [
        torch.optim.RMSprop(parameters, LEARNING_RATE, RHO, EPSILON, foreach=is_one) for is_one in (False, True)
    ]

    def step():
        ours.apply_gradients([(p.grad, p) for p in parameters])

    def limit():
        arrays = [p.grad for p in parameters], [ours.get_slot(p, "rms").array for p in parameters], parameters
        return streaming([[tensor.detach().numpy() for tensor in tensors] for tensors in arrays])

    step()
    makers = limit, lambda: step, lambda: loops[0].step, lambda: loops[1].step
    samples = {name: [] for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, make in zip(CONTENDERS, makers, strict=True):
            time.sleep(0.02)  # until the threads of the one before have ceased to spin
            for _ in range(STEPS):
                fresh(torch, parameters)
                samples[name].append(seconds(make()))
    return {name: statistics.median(found) for name, found in samples.items()}


def fresh(torch, parameters):
    """Give all parameters new gradients, as a backward pass does after ``zero_grad(set_to_none=True)``."""
    for parameter in parameters:
        parameter.grad = None
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5)


def seconds(step):
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


if __name__ == "__main__":
    from benchmarks.entrants import is_installed

    print(json.dumps(race(sys.argv[1]) if is_installed("torch") else {}))
