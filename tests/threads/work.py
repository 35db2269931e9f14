"""What the programs beside this file have in common: optimizers of all kinds, and Numba's threading layers."""

import argparse
import ctypes
import hashlib
import importlib.metadata
import os
import sys

import numpy as np

from rmsprop import IndexedSlices, RMSprop, schedules

LAYERS = ("omp", "tbb", "workqueue", "hidden")
"""Numba's threading layers; "hidden" stands for its own choice where there is neither libgomp nor tbb."""

LARGE = 300_000
"""Elements of an array that is updated by several threads."""


def choose_layer(layer):
    """Let Numba use a layer; in a process that has not imported Numba yet."""
    if layer == "hidden":
        sys.modules["numba.np.ufunc.omppool"] = sys.modules["numba.np.ufunc.tbbpool"] = None
        return
    if layer == "tbb":  # its wheel lies where the system does not look; once loaded, it is found by its name
        (library,) = (f for f in importlib.metadata.files("tbb") if f.name == "libtbb.so.12")
        ctypes.CDLL(str(library.locate()), ctypes.RTLD_GLOBAL)
    os.environ["NUMBA_THREADING_LAYER"] = layer


def check_layer(layer):
    """Fail unless Numba has really used the layer."""
    import numba

    assert numba.threading_layer() == ("workqueue" if layer == "hidden" else layer)


def program(description):
    """Return a parser of the arguments that all programs have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--layer", choices=LAYERS, default="omp")
    parser.add_argument("--kinds", type=int, default=8, help="how many kinds of optimizers to use")
    return parser


class Training:
    """An optimizer with variables and gradients, all drawn from a seed."""

    def __init__(self, kind, seed):
        rng = np.random.default_rng([kind, seed])
        options, shapes, dtype = KINDS[kind]
        self.optimizer = RMSprop(**{"learning_rate": 1e-3, **options})
        self.variables = [draw(rng, shape, dtype) for shape in shapes]
        self.gradients = [[draw(rng, shape, dtype) for shape in shapes] for _ in range(3)]
        if kind == SPARSE:
            rows = [rng.integers(0, shapes[0][0], 5_000) for _ in self.gradients]
            self.gradients = [
                [IndexedSlices(g[: len(r)], r)] for (g,), r in zip(self.gradients, rows, strict=True)
            ]

    def step(self, k):
        """Take a step."""
        self.optimizer.apply_gradients(zip(self.gradients[k % 3], self.variables, strict=True))

    def digest(self):
        """Return a digest of all variables and weights."""
        arrays = [*self.variables, *self.optimizer.get_weights()]
        return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def draw(rng, shape, dtype):
    """Return random numbers; those of float16 in an array with gaps."""
    numbers = rng.standard_normal(shape)
    if dtype == "complex64":
        numbers = numbers + 1j * rng.standard_normal(shape)
    if dtype == "float16":
        numbers = np.repeat(numbers, 2, axis=-1).astype(dtype)[..., ::2]
    return numbers.astype(dtype, copy=False)


KINDS = [
    ({}, [(LARGE,)], "float32"),
    ({"momentum": 0.9, "global_clipnorm": 1.0}, [(LARGE,), (3, 5), (7,)], "float32"),
    ({}, [(40, 3), (3,)] * 20, "float32"),
    ({}, [(60_000, 8)], "float32"),
    ({"centered": True, "learning_rate": schedules.ExponentialDecay(1e-3, 10, 0.9)}, [(LARGE,)], "float64"),
    ({"state_dtype": "uint8"}, [(LARGE // 100, 100)], "float32"),
    ({"clipvalue": 0.5, "rho": lambda: 0.8}, [(600, 500)], "complex64"),
    ({"clipnorm": 0.5}, [(600, 500)], "float16"),
]
SPARSE = 3
"""The kind whose gradients are sparse."""
