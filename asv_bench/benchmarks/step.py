"""Time of one `apply_gradients` of rmsprop alone, by dtype, hyperparameter, clipping and height of a table."""

import importlib
import importlib.util

from benchmarks.contenders import ours
from benchmarks.scenarios import CENTERED, MOMENTUM, ROWS, Scenario, draw, one_array, resnet50, shrunk
from rmsprop import RMSprop, schedules


class Dtypes:
    """One array of a million elements of each dtype."""

    params = (
        ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"],
        ["plain", "momentum", "momentum, centered"],
    )
    param_names = ("dtype", "variant")
    variants = {"plain": {}, "momentum": MOMENTUM, "momentum, centered": CENTERED}

    def setup(self, dtype, variant):
        if dtype == "bfloat16":
            if importlib.util.find_spec("ml_dtypes") is None:
                raise NotImplementedError("bfloat16 needs ml_dtypes")
            dtype = importlib.import_module("ml_dtypes").bfloat16
        (self.gradient,) = draw([(shrunk(1_000_000),)], dtype)
        self.variable = self.gradient * 0
        self.optimizer = RMSprop(1e-4, **self.variants[variant])
        self.time_step(dtype, variant)

    def time_step(self, dtype, variant):
        self.optimizer.apply_gradients([(self.gradient, self.variable)])


class Hyperparameters:
    """A small array, by what the learning rate is."""

    params = ["number", "callable", "schedule"]
    param_names = ("learning_rate",)

    def setup(self, kind):
        rates = {"number": 1e-4, "callable": lambda: 1e-4, "schedule": schedules.CosineDecay(1e-4, 1_000_000)}
        (self.gradient,) = draw([(1_000,)])
        self.variable = self.gradient * 0
        self.optimizer = RMSprop(rates[kind])
        self.time_step(kind)

    def time_step(self, kind):
        self.optimizer.apply_gradients([(self.gradient, self.variable)])


class Clipping:
    """One array or many, by how gradients are clipped."""

    params = (
        ["1 × 1,000", "1 × 1,000,000", "ResNet-50"],
        ["none", "clipvalue", "clipnorm", "global_clipnorm"],
    )
    param_names = ("arrays", "clipping")

    def setup(self, arrays, clipping):
        settings = {} if clipping == "none" else {clipping: 1.0}
        made = {"1 × 1,000": one_array(1_000), "1 × 1,000,000": one_array(1_000_000), "ResNet-50": resnet50()}
        self.step = ours(made[arrays]._replace(settings=settings)).step

    def time_step(self, arrays, clipping):
        self.step()


class Sparse:
    """The listed rows of a table: the time should not depend on the table's height."""

    params = ([10_000, 100_000, 1_000_000], ["distinct", "some twice"], ["plain", "momentum"])
    param_names = ("height", "rows", "variant")

    def setup(self, height, rows, variant):
        settings = MOMENTUM if variant == "momentum" else {}
        shapes = [(shrunk(height), 64)]
        self.step = ours(Scenario(shapes, settings, listed=ROWS.listed, is_repeated=rows == "some twice")).step

    def time_step(self, height, rows, variant):
        self.step()
