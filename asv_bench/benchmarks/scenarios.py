"""What is timed: lists of float32 arrays, and the settings of the optimizer."""

import inspect
import os
from typing import Any, NamedTuple

import numpy as np

from benchmarks.architectures import resnet50_shapes
from rmsprop import RMSprop

SMOKE = bool(os.environ.get("RMSPROP_BENCH_SMOKE"))
"""Whether everything is to run once on small arrays, only to see that it runs."""

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 64_000_000)
STATE_DTYPES = (None, "bfloat16", "uint8")
MOMENTUM = {"momentum": 0.9}
CENTERED = {"momentum": 0.9, "centered": True}


class Scenario(NamedTuple):
    """A list of variables with a gradient each, and how they are updated."""

    shapes: list[tuple[int, ...]]
    settings: dict[str, Any] = {}
    is_new: bool = False
    """Whether each step gets new gradient arrays."""
    listed: int = 0
    """How many rows a sparse gradient of the only variable lists; 0 if gradients are dense."""
    is_repeated: bool = False
    """Whether rows are listed twice."""


def shrunk(number):
    """Return a size or a count, a small part of it for a smoke test."""
    return max(number // 500, 5) if SMOKE else number


def one_array(elements, **settings):
    """Return the scenario of a single array."""
    return Scenario([(shrunk(elements),)], settings)


def resnet50(**settings):
    """Return the scenario of the parameters of ResNet-50."""
    return Scenario(resnet50_shapes(width=4, classes=10) if SMOKE else resnet50_shapes(), settings)


SMALL_ARRAYS = Scenario([(100,)] * shrunk(1_000))
ROWS = Scenario([(shrunk(1_000_000), 64)], listed=shrunk(8_192))

SCENARIOS = {
    **{f"1 × {elements:,}": one_array(elements) for elements in SIZES},
    "1,000 × 100": SMALL_ARRAYS,
    "1,000 × 100, new gradient arrays": SMALL_ARRAYS._replace(is_new=True),
    "ResNet-50": resnet50(),
    "ResNet-50, momentum": resnet50(**MOMENTUM),
    "ResNet-50, momentum, centered": resnet50(**CENTERED),
    "ResNet-50, momentum, weight decay": resnet50(**MOMENTUM, weight_decay=1e-4),
    "ResNet-50, global_clipnorm": resnet50(global_clipnorm=1.0),
    "8,192 of 1,000,000 rows × 64": ROWS,
    "8,192 of 1,000,000 rows × 64, some twice": ROWS._replace(is_repeated=True),
    **{f"1 × 64,000,000, {name} state": one_array(64_000_000, state_dtype=name) for name in STATE_DTYPES[1:]},
}


def is_supported(settings):
    """Tell whether this version of rmsprop has all the settings."""
    return settings.keys() <= inspect.signature(RMSprop).parameters.keys()


def draw(shapes, dtype="float32"):
    """Return gradients, the same ones each time."""
    rng = np.random.default_rng(0)
    if dtype == "float32":
        return [rng.standard_normal(shape, np.float32) for shape in shapes]
    real, imaginary = ([rng.standard_normal(shape, np.float32) for shape in shapes] for _ in range(2))
    is_complex = str(dtype).startswith("complex")
    return [(x + 1j * y if is_complex else x).astype(dtype) for x, y in zip(real, imaginary, strict=True)]


def draw_rows(scenario):
    """Return the values of a sparse gradient, and the rows that they are for."""
    height, width = scenario.shapes[0]
    rng = np.random.default_rng(0)
    among = scenario.listed // 2 if scenario.is_repeated else scenario.listed
    rows = rng.choice(height, max(among, 1), replace=False)
    indices = rng.choice(rows, scenario.listed) if scenario.is_repeated else rows
    return rng.standard_normal((scenario.listed, width), np.float32), indices
