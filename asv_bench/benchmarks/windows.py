"""Gradients of patches of a complex object that overlap, as in ptychography: time of a step by how they are given.

All are timed in turn in one process, since times of two processes do not compare.
"""

import statistics
import time

import numpy as np

from benchmarks.race import PAUSE, ROUNDS, timed
from benchmarks.scenarios import SMOKE, draw
from rmsprop import RMSprop, Windows

SIDE, PATCH, COUNT = (64, 8, 5) if SMOKE else (2_048, 64, 1_000)
WAYS = ("windows", "flat rows", "scattered in a loop", "scattered by add.at", "dense step alone")


class Way:
    """A way to take a step, by a function that returns the gradient of a variable of some shape."""

    def __init__(self, gradient, shape):
        self.gradient, self.variable, self.optimizer = gradient, np.zeros(shape, np.complex64), RMSprop(1e-4)

    def step(self):
        self.optimizer.apply_gradients([(self.gradient(), self.variable)])


def ways():
    """Return the ways by their names, all with the same gradient."""
    shape = SIDE, SIDE
    (values,) = draw([(COUNT, PATCH, PATCH)], "complex64")
    starts = np.random.default_rng(0).integers(0, SIDE - PATCH + 1, (COUNT, 2))
    windows, dense = Windows(values, starts), np.zeros(shape, np.complex64)
    rows = windows.indexed(shape)

    def in_a_loop():
        dense[...] = 0
        for (i, j), patch in zip(starts.tolist(), values, strict=True):
            dense[i : i + PATCH, j : j + PATCH] += patch
        return dense

    def by_add_at():
        dense[...] = 0
        np.add.at(dense.reshape(-1), rows.indices, rows.values)
        return dense

    gradients = (lambda: windows, lambda: rows, in_a_loop, by_add_at, lambda: dense)
    shapes = (shape, (SIDE * SIDE,), shape, shape, shape)
    return {name: Way(*each) for name, *each in zip(WAYS, gradients, shapes, strict=True)}


def setup_cache():
    """Return the median seconds of a step by way."""
    made, samples = ways(), {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in made.items():
            time.sleep(PAUSE)
            samples[name] += timed(way, is_new=False)
    return {name: statistics.median(times) for name, times in samples.items()}


setup_cache.timeout = 600


class Overlapping:
    """1,000 patches of 64 x 64 in 2,048 x 2,048."""

    params = WAYS
    param_names = ("way",)
    unit = "seconds"

    def track_step(self, times, way):
        return times[way]
