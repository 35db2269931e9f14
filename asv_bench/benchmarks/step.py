"""Time of one `apply_gradients`, and its ratio to what memory allows."""

import numpy as np

from benchmarks.limit import ratio_to_limit
from rmsprop import IndexedSlices, RMSprop, schedules


def problem(size, dtype="float32", **settings):
    """Return an optimizer that has compiled its kernels, a gradient and a variable."""
    gradient = np.random.default_rng(0).standard_normal(size).astype(dtype)
    variable = np.zeros(size, dtype)
    optimizer = RMSprop(1e-4, **settings)
    optimizer.apply_gradients([(gradient, variable)])
    return optimizer, gradient, variable


class OneArray:
    """One array, by size and variant."""

    params = ([1_000, 100_000, 1_000_000, 64_000_000], ["plain", "momentum", "centered", "global_clipnorm"])
    param_names = ("elements", "variant")
    variants = {
        "plain": {},
        "momentum": {"momentum": 0.9},
        "centered": {"momentum": 0.9, "centered": True},
        "global_clipnorm": {"global_clipnorm": 1.0},
    }

    def setup(self, elements, variant):
        self.optimizer, self.gradient, self.variable = problem(elements, **self.variants[variant])

    def time_step(self, elements, variant):
        self.optimizer.apply_gradients([(self.gradient, self.variable)])


class Dtypes:
    """One array of a million elements of each dtype."""

    params = ["float16", "float32", "float64", "complex64", "complex128"]
    param_names = ("dtype",)

    def setup(self, dtype):
        self.optimizer, self.gradient, self.variable = problem(1_000_000, dtype)

    def time_step(self, dtype):
        self.optimizer.apply_gradients([(self.gradient, self.variable)])


class Schedule:
    """A small array, with a learning rate that is computed."""

    def setup(self):
        self.optimizer, self.gradient, self.variable = problem(1_000)
        self.optimizer.learning_rate = schedules.CosineDecay(0.1, 1_000_000)

    def time_step(self):
        self.optimizer.apply_gradients([(self.gradient, self.variable)])


class Sparse:
    """8,192 rows of tables of 64 columns: the time should not depend on the table's height."""

    params = [10_000, 1_000_000]
    param_names = ("rows",)

    def setup(self, rows):
        rng = np.random.default_rng(0)
        self.table = np.zeros((rows, 64), np.float32)
        values = rng.standard_normal((8_192, 64)).astype(np.float32)
        self.gradient = IndexedSlices(values, rng.integers(0, rows, 8_192))
        self.optimizer = RMSprop()
        self.optimizer.apply_gradients([(self.gradient, self.table)])

    def time_step(self, rows):
        self.optimizer.apply_gradients([(self.gradient, self.table)])


class Limit:
    """Time of a step over that of a loop that streams the same arrays once."""

    params = [1_000_000, 64_000_000]
    param_names = ("elements",)
    unit = "ratio"

    def track_ratio(self, elements):
        optimizer, gradient, variable = problem(elements)
        rms = optimizer.get_slot(variable, "rms").array

        def step():
            optimizer.apply_gradients([(gradient, variable)])

        return ratio_to_limit(step, gradient, rms, variable, rounds=300 if elements < 10**7 else 15)
