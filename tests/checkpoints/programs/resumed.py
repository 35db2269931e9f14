"""Compares training that is resumed from a file with training that goes on; takes numbers of variants."""

import itertools
import pathlib
import sys
import tempfile

import numpy as np

from rmsprop import IndexedSlices, RMSprop, Variable, schedules

VARIANTS = [
    {},
    {"momentum": 0.9, "centered": True, "global_clipnorm": 3.0},
    {"learning_rate": schedules.CosineDecay(0.1, 1000, warmup_target=0.2, warmup_steps=50), "decay": 0.01},
    {"learning_rate": schedules.PiecewiseConstantDecay([300, 600], [0.1, 0.01, 0.001]), "momentum": 0.5},
    {"learning_rate": schedules.ExponentialDecay(0.1, 100, 0.9), "state_dtype": "uint8"},
    {"state_dtype": "uint8", "momentum": 0.9, "centered": True},
    {"state_dtype": "bfloat16", "momentum": 0.9, "centered": True},
]


def drawn(seed, array):
    """Return an array of the same shape and dtype."""
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(array.shape)
    if np.iscomplexobj(array):
        numbers = numbers + 1j * rng.standard_normal(array.shape)
    return np.asarray(numbers, array.dtype)


def bits(opt, variables):
    """Return variables and weights, down to the bit."""
    arrays = [np.asarray(v.numpy() if isinstance(v, Variable) else v) for v in variables]
    return [np.ascontiguousarray(a).tobytes() for a in (*arrays, *opt.get_weights())]


def train(opt, variables, begin, end):
    """Take steps, a third of them with a sparse gradient."""
    for step in range(begin, end):
        pairs = [(drawn((step, i), v), v) for i, v in enumerate(variables)]
        if step % 3 == 0:
            values = drawn(step, np.empty((3, *variables[0].shape[1:]), variables[0].dtype))
            pairs[0] = (IndexedSlices(values, np.array([1, 3, 1])), variables[0])
        opt.apply_gradients(pairs)


def differences(settings, way, path, make_variables, steps):
    """Return where training that was resumed half-way differs from training that was not."""
    settings = {"learning_rate": 0.01, **settings}
    opt, w = RMSprop(**settings), make_variables()
    train(opt, w, 0, steps // 2)
    opt.save(path, w)
    train(opt, w, steps // 2, steps)
    again, v = RMSprop(**settings) if way == "restore" else RMSprop.load(path), make_variables()
    again.restore(path, v)
    train(again, v, steps // 2, steps)
    return [i for i, (a, b) in enumerate(zip(bits(opt, w), bits(again, v), strict=True)) if a != b]


def arrays():
    """Return variables of several layouts, and of the dtypes that 8 bits and bfloat16 serve."""
    return [
        np.ones((5, 70), np.float32),
        np.ones(7),
        np.ones((9, 8))[::2, ::-1],
        np.asfortranarray(np.ones((3, 4))),
    ]


def more_arrays():
    """Return some of the other dtypes, too."""
    return [*arrays(), np.ones((3, 2), np.float16), np.ones(5, np.complex64), np.ones((2, 2), np.complex128)]


def main(variants):
    """Train 1,000 steps in variants."""
    with tempfile.TemporaryDirectory() as folder:
        for settings, way in itertools.product(variants, ["restore", "load"]):
            make = arrays if "state_dtype" in settings else more_arrays
            found = differences(settings, way, pathlib.Path(folder) / "checkpoint.safetensors", make, 1000)
            print(f"{way} {settings}: {found or 'equal to the bit'}", flush=True)


if __name__ == "__main__":
    main([VARIANTS[int(i)] for i in sys.argv[1:]] or VARIANTS)
