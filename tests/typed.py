"""What type checkers see of the interface: checked by mypy and pyright in ``make lint``, never run.

Where an assignment or a call is to be refused, a comment ignores the error, and both checkers want to see one.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any, Literal, assert_type

import numpy as np

from rmsprop import LossScale, RMSprop, Variable, conventions, schedules
from rmsprop.schedules import LearningRateSchedule

opt = RMSprop(0.1)
rates = schedules.CosineDecay(0.1, 1000)

# What is read

assert_type(opt.learning_rate, float | Variable | Any | LearningRateSchedule)
assert_type(opt.lr, float | Variable | Any | LearningRateSchedule)
assert_type(opt.rho, float | Variable | Any)
assert_type(opt.momentum, float | Variable | Any)
assert_type(opt.current_learning_rate, float)
assert_type(opt.epsilon, float)
assert_type(opt.decay, float)
assert_type(opt.clipnorm, float | None)
assert_type(opt.clipvalue, float | None)
assert_type(opt.global_clipnorm, float | None)
assert_type(opt.centered, bool)
assert_type(opt.lazy, bool)
assert_type(opt.validate, bool)
assert_type(opt.complex_as_real, bool)
assert_type(opt.epsilon_in_sqrt, bool | None)
assert_type(opt.state_dtype, Literal["bfloat16", "uint8"] | None)
assert_type(opt.nonfinite, Literal["propagate", "skip", "raise"])
assert_type(opt.loss_scale, LossScale | None)
assert_type(opt.name, str)
assert_type(opt.skipped, int)
assert_type(opt.get_config(), dict[str, Any])
assert_type(RMSprop.from_config({}), RMSprop)

# What is accepted

for learning_rate in (
    1,
    0.1,
    np.float32(0.1),
    np.array(0.1),
    Variable(0.1),
    rates,
    lambda: 0.1,
    lambda: np.array(0.1),
):
    RMSprop(learning_rate, rho=0.5, momentum=np.float64(0.5))
RMSprop(
    rho=lambda: 0.5, momentum=Variable(0.5), epsilon=None, clipnorm=1, decay=np.float32(0.1), centered=np.True_
)
RMSprop(state_dtype="uint8", nonfinite="skip", loss_scale=LossScale(), gradient_transformers=[lambda pairs: pairs])
opt.learning_rate = opt.lr = rates
opt.learning_rate = lambda: 0.1
opt.rho = Variable(0.5)
opt.rho = opt.rho * 0.5
opt.clipnorm, opt.clipvalue, opt.epsilon_in_sqrt = 1, np.float32(2), None
opt.state_dtype = "bfloat16"
opt.nonfinite = "raise"
opt.gradient_transformers = None

# What is refused

RMSprop("0.1")  # type: ignore[arg-type]
RMSprop(rho=rates)  # type: ignore[arg-type]
RMSprop(momentum=[0.5])  # type: ignore[arg-type]
RMSprop(momentum=None)  # type: ignore[arg-type]
RMSprop(centered="yes")  # type: ignore[arg-type]
RMSprop(state_dtype="float16")  # type: ignore[arg-type]
RMSprop(nonfinite="ignore")  # type: ignore[arg-type]
RMSprop(loss_scale=2.0)  # type: ignore[arg-type]
RMSprop(learnig_rate=0.1)  # type: ignore[call-arg]
opt.learning_rate = "0.1"  # type: ignore[assignment]
opt.rho = rates  # type: ignore[assignment]
opt.lazy = None  # type: ignore[assignment]
opt.clipnorm = "1"  # type: ignore[assignment]
opt.state_dtype = "uint16"  # type: ignore[assignment]
opt.nonfinite = "warn"  # type: ignore[assignment]
opt.gradient_aggregator = 0.5  # type: ignore[assignment]

# Conventions

assert_type(conventions.torch(0.1, maximize=True, clipnorm=1.0, nonfinite="skip"), RMSprop)
assert_type(conventions.optax(lambda count: 0.1 / (1 + count), momentum=0.9, weight_decay=1e-4), RMSprop)
conventions.optax(rates)
conventions.keras(rates, weight_decay=0.1, global_clipnorm=1, lazy=False)
conventions.mxnet(wd=0.1, clip_gradient=1.0, clipnorm=1.0)
conventions.torch("0.1")  # type: ignore[arg-type]
conventions.torch(learning_rate=0.1)  # type: ignore[call-arg]
conventions.torch(lambda count: 0.1 * count)  # type: ignore[arg-type]
conventions.optax(lambda: 0.1)  # type: ignore[arg-type, misc]
conventions.keras(clipnorm=1.0, state_dtype="float16")  # type: ignore[arg-type]
opt.set_weights(conventions.weights_from_torch({}))
assert_type(conventions.weights_to_torch(opt), dict[str, Any])

# Schedules

assert_type(rates(3), float)
assert_type(rates(3.5), float)
assert_type(rates(np.int64(3)), float)
assert_type(rates(Variable(3)), float)
assert_type(rates(np.arange(3)), np.ndarray[Any, Any])


class Halving(LearningRateSchedule):
    """A schedule of a user."""

    def __call__(self, step: Any) -> float:
        return float(0.5**step)


RMSprop(Halving())
