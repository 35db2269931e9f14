"""A step on arrays of JAX: that of rmsprop, compiled as a whole list, and that of optax under jit."""

import json
import math
import subprocess
import sys
from pathlib import Path

from benchmarks.contenders import EPSILON, LEARNING_RATE, RHO, Contender
from benchmarks.entrants import is_installed
from benchmarks.scenarios import SCENARIOS, draw

NAMES = ("1 × 1,000", "1 × 1,000,000", "1 × 10,000,000", "ResNet-50, momentum")


def setup_cache():
    """Return the median seconds of a step by scenario and contender."""
    command = [sys.executable, "-m", "benchmarks.jax_arrays", *NAMES]
    output = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(output)


setup_cache.timeout = 600


class JaxArrays:
    """Time of a step, and its ratio to that of optax; NaN where one of them is not installed."""

    params = NAMES
    param_names = ("scenario",)

    def track_step(self, times, name):
        return times.get(name, {}).get("rmsprop", math.nan)

    def track_ratio_to_optax(self, times, name):
        return self.track_step(times, name) / times.get(name, {}).get("optax", math.nan)


JaxArrays.track_step.unit = "seconds"
JaxArrays.track_ratio_to_optax.unit = "ratio"


def ours(scenario):
    import jax

    from rmsprop import RMSprop, Variable

    optimizer = RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON, **scenario.settings)
    variables = [Variable(jax.numpy.zeros(shape)) for shape in scenario.shapes]
    gradients = [jax.numpy.array(g) for g in draw(scenario.shapes)]

    def step():
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        variables[0].array.block_until_ready()  # and with it all others, as they come from one program

    return Contender(step)


def race(scenario):
    """Return the median seconds of both, which take turns."""
    from statistics import median

    from benchmarks.peers import optax
    from benchmarks.race import ROUNDS, timed

    contenders = {"rmsprop": ours(scenario), "optax": optax(scenario)}
    samples = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            samples[name] += timed(contender, is_new=False)
    return {name: median(times) for name, times in samples.items()}


if __name__ == "__main__":
    is_there = is_installed("jax") and is_installed("optax")
    print(json.dumps({name: race(SCENARIOS[name]) for name in sys.argv[1:]} if is_there else {}))
