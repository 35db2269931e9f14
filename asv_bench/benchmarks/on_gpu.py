"""Steps on CuPy arrays, which wait for the device; skipped where there is none."""

import importlib.util
import math
import statistics

from benchmarks.race import ROUNDS, seconds
from benchmarks.scenarios import SCENARIOS, draw
from rmsprop import RMSprop

DENSE = [name for name, s in SCENARIOS.items() if not (s.listed or s.is_new or "state_dtype" in s.settings)]


class OnGpu:
    """Time of a step, and its ratio to a kernel that streams the same arrays, laid end to end."""

    params = DENSE
    param_names = ("scenario",)

    def setup(self, name):
        self.cupy = cupy = device_or_skip()
        scenario = SCENARIOS[name]
        variables = [cupy.zeros(shape, cupy.float32) for shape in scenario.shapes]
        gradients = [cupy.asarray(g) for g in draw(scenario.shapes)]
        optimizer = RMSprop(1e-4, **scenario.settings)

        def step():
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

        self.step = step
        self.time_step(name)

    def time_step(self, name):
        self.step()
        self.cupy.cuda.Device().synchronize()

    def track_ratio_to_limit(self, name):
        limit = streaming(self.cupy, SCENARIOS[name])
        samples = {self.step: [], limit: []}
        for _ in range(10 * ROUNDS):
            for function, times in samples.items():
                times.append(seconds(lambda function=function: self.finished(function), 1))
        return statistics.median(samples[self.step]) / statistics.median(samples[limit])

    track_ratio_to_limit.unit = "ratio"

    def finished(self, function):
        function()
        self.cupy.cuda.Device().synchronize()


def streaming(cupy, scenario):
    """Return a function that reads an array of gradients, twice for a norm, and reads and writes others."""
    settings = scenario.settings
    names = "abcd"[: 2 + ("momentum" in settings) + ("centered" in settings)]
    kernel = cupy.ElementwiseKernel(
        "float32 g",
        ", ".join(f"float32 {x}" for x in names),
        "float nothing = g * 0.0f; " + " ".join(f"{x} += nothing;" for x in names),
        f"read_and_write_{len(names)}",
    )
    elements = sum(math.prod(shape) for shape in scenario.shapes)
    g, *arrays = (cupy.zeros(elements, cupy.float32) for _ in range(1 + len(names)))

    def step():
        if "global_clipnorm" in settings:
            cupy.vdot(g, g)
        kernel(g, *arrays)

    return step


def device_or_skip():
    """Return CuPy, if there is a GPU."""
    if importlib.util.find_spec("cupy") is None:
        raise NotImplementedError("CuPy is not installed")
    import cupy

    if not cupy.cuda.is_available():
        raise NotImplementedError("there is no GPU")
    return cupy
