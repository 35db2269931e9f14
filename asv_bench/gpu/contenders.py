"""Who takes part on a GPU: rmsprop on CuPy, the limit that memory sets, and peers as far as they are installed.

Each function makes variables of its own and returns how to take a step, which does not wait for the device.
"""

import importlib.util
import math
from functools import partial

import cupy
import numpy as np
from benchmarks.contenders import EPSILON, LEARNING_RATE, RHO
from benchmarks.scenarios import draw, draw_rows
from scenarios import dtype_of

PLAIN = {"momentum", "centered", "dtype"}
"""The settings that peers know under these names, and the dtype, which all but torch know."""


def ours(scenario, xp=cupy):
    """Return the step of rmsprop, its optimizer and its variables."""
    from rmsprop import IndexedSlices, RMSprop

    variables = [xp.zeros(shape, dtype_of(scenario)) for shape in scenario.shapes]
    settings = {name: value for name, value in scenario.settings.items() if name != "dtype"}
    optimizer = RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON, **settings)
    if scenario.listed:
        values, indices = draw_rows(scenario)
        gradients = [IndexedSlices(xp.asarray(values), xp.asarray(indices))]
    else:
        gradients = [xp.asarray(g) for g in draw(scenario.shapes, dtype_of(scenario))]

    def step():
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    return step, optimizer, variables


def bytes_of(scenario):
    """Return how many bytes a step has to read and write at least, by the formula alone."""
    settings, itemsize = scenario.settings, np.dtype(dtype_of(scenario)).itemsize
    real = np.dtype(dtype_of(scenario)).type(0).real.itemsize
    codes = {"uint8": 1, "bfloat16": 2}.get(settings.get("state_dtype"))
    slots = (codes or real) + (codes or itemsize) * (("momentum" in settings) + settings.get("centered", False))
    gradient = itemsize * (2 if "global_clipnorm" in settings or "clipnorm" in settings else 1)
    elements = sum(map(math.prod, scenario.shapes))
    if scenario.listed:
        elements = scenario.listed * scenario.shapes[0][1]
    return elements * (gradient + 2 * itemsize + 2 * slots)


def cupy_in_place(scenario):
    """Return the step that is written by hand in CuPy's operations, without temporaries that can be avoided."""
    variables, gradients, slots = arrays(scenario)
    momentum, is_centered = scenario.settings.get("momentum"), scenario.settings.get("centered")

    def step():
        for v, g, (rms, mom, mg) in zip(variables, gradients, slots, strict=True):
            rms *= RHO
            square = cupy.square(g)
            square *= 1 - RHO
            rms += square
            variance = rms
            if is_centered:
                mg *= RHO
                mg += (1 - RHO) * g
                variance = rms - cupy.square(mg)
            root = cupy.sqrt(variance + (EPSILON if momentum else 0), out=square)
            root += 0 if momentum else EPSILON
            change = cupy.divide(g, root, out=square)
            change *= LEARNING_RATE
            if momentum:
                mom *= momentum
                mom += change
                change = mom
            v -= change

    return step


def elementwise(scenario):
    """Return the step that is written by hand as an ElementwiseKernel, one launch for each array."""
    variables, gradients, slots = arrays(scenario)
    momentum, is_centered = scenario.settings.get("momentum"), scenario.settings.get("centered")
    names = ["v", "rms", *["mom"] * bool(momentum), *["mg"] * bool(is_centered)]
    lines = [
        f"float r = {RHO}f * rms + {1 - RHO}f * g * g; rms = r; float variance = r;",
        f"float m = {RHO}f * mg + {1 - RHO}f * g; mg = m; variance = max(r - m * m, 0.0f);" if is_centered else "",
        f"float s = {LEARNING_RATE}f * g / ",
        f"sqrt(variance + {EPSILON}f);" if momentum else f"(sqrt(variance) + {EPSILON}f);",
        f"s = {momentum}f * mom + s; mom = s;" if momentum else "",
        "v -= s;",
    ]
    text = " ".join(lines)
    kernel = cupy.ElementwiseKernel("float32 g", ", ".join(f"float32 {x}" for x in names), text, "by_hand")
    used = [
        [g, v, rms, *[mom] * bool(momentum), *[mg] * bool(is_centered)]
        for v, g, (rms, mom, mg) in zip(variables, gradients, slots, strict=True)
    ]

    def step():
        for given in used:
            kernel(*given)

    return step


def arrays(scenario):
    """Return variables, gradients, and for each variable three slots."""
    variables = [cupy.zeros(shape, np.float32) for shape in scenario.shapes]
    gradients = [cupy.asarray(g) for g in draw(scenario.shapes)]
    return variables, gradients, [[cupy.zeros_like(v) for _ in range(3)] for v in variables]


def torch(scenario, **options):
    """Return the step of torch on its own tensors."""
    import torch

    if not torch.cuda.is_available():
        return None
    variables = [torch.zeros(shape, device="cuda") for shape in scenario.shapes]
    for v, g in zip(variables, draw(scenario.shapes), strict=True):
        v.grad = torch.from_numpy(g).cuda()
    return torch.optim.RMSprop(variables, LEARNING_RATE, RHO, EPSILON, **options, **scenario.settings).step


def optax(scenario):
    """Return the step of optax, compiled by JAX, which waits for its results."""
    import jax

    if jax.default_backend() != "gpu":
        return None
    from benchmarks import peers

    return peers.optax(scenario).step


PEERS = {
    "CuPy in place": ("cupy", cupy_in_place),
    "ElementwiseKernel": ("cupy", elementwise),
    "torch foreach": ("torch", partial(torch, foreach=True)),
    "torch capturable": ("torch", partial(torch, foreach=True, capturable=True)),
    "optax": ("optax", optax),
}


def peers(scenario):
    """Return the steps of the peers that take part in a scenario, by name."""
    if scenario.listed or not scenario.settings.keys() <= PLAIN - {"dtype"}:
        return {}
    made = {name: build(scenario) for name, (package, build) in PEERS.items() if importlib.util.find_spec(package)}
    return {name: step for name, step in made.items() if step is not None}
