"""Arguments that the conventions have in common: what can be passed along, epsilons, schedules, and refusals."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, SupportsFloat, TypeAlias, TypedDict, cast

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Host, is_array
from rmsprop.formula import ACCUMULATOR
from rmsprop.optimizer import RMSprop
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings.checks import (
    Epsilon,
    Flag,
    Nonfinite,
    Rate,
    StateDtype,
    Transformer,
    number,
    where_added,
)
from rmsprop.state.loss_scale import LossScale
from rmsprop.variables.variable import Variable

CountedRate: TypeAlias = SupportsFloat | LearningRateSchedule | Callable[[int], SupportsFloat]
"""A learning rate; if it is a function, then of the number of finished steps, such as a schedule of optax."""


class Further(TypedDict, total=False):
    """Settings of `rmsprop.RMSprop` that no other framework's RMSprop has."""

    gradient_aggregator: Transformer | None
    gradient_transformers: Iterable[Transformer] | None
    lazy: Flag
    state_dtype: StateDtype | None
    nonfinite: Nonfinite
    loss_scale: LossScale | None
    validate: Flag


class WithNorms(Further, total=False):
    """Settings of `rmsprop.RMSprop` that frameworks have elsewhere, such as in functions that clip by norm."""

    clipnorm: SupportsFloat | None
    global_clipnorm: SupportsFloat | None
    use_ema: Flag
    ema_momentum: SupportsFloat
    ema_overwrite_frequency: int | None
    accumulate: int


class Settings(WithNorms, total=False):
    """The same, and clipping of each element."""

    clipvalue: SupportsFloat | None


class WithDecay(Settings, total=False):
    """Settings of `rmsprop.RMSprop` for conventions without a weight decay of their own."""

    weight_decay: Rate | None
    decoupled: Flag
    maximize: Flag


def epsilon_of(name: str, value: SupportsFloat, in_sqrt: Flag) -> Epsilon:
    """Return the settings for the epsilon of a convention, where 0 means none."""
    return where_added(number(name, value, 0.0), bool(in_sqrt))


@dataclass(frozen=True)
class OfCount(LearningRateSchedule):
    """A learning rate that is a function of the number of finished steps, as in optax and JAX."""

    function: Callable[[Any], Any]

    def __call__(self, step: Any) -> Any:
        """Return the learning rate after `step` finished steps."""
        return self.function(step)


def counted(rate: CountedRate) -> Rate:
    """Return a learning rate; one that is a function gets the number of finished steps."""
    if callable(rate) and not isinstance(rate, LearningRateSchedule | Variable) and not is_array(rate):
        return OfCount(rate)
    return cast(Rate, rate)


def refuse(function: str, name: str, value: object, neutral: Iterable[Any], instead: str) -> None:
    """Raise ``ValueError`` if an argument of a convention asks for what has no counterpart here."""
    if not any(value is each or (type(value) is type(each) and value == each) for each in neutral):
        expected = " or ".join(map(repr, neutral))
        raise ValueError(
            f"{name}={value!r} of conventions.{function} asks for what is not done here; expected {expected}. "
            f"Instead, {instead}."
        )


def slots_of(optimizer: RMSprop, names: Collection[str]) -> tuple[int, dict[str, list[Host]]]:
    """Return the number of steps, and by name copies of those slots of all variables that another framework has.

    Raises
    ------
    ValueError
        If there are none yet, or gradients that wait for a step.
    """
    state = optimizer._state
    with state.lock:
        given = list(zip([name for name, _ in state.named_weights], optimizer.get_weights(), strict=True))
    weights = {name: [array for owner, array in given if owner == name] for name in ("rms", "accumulated", *names)}
    if not weights["rms"]:
        raise ValueError("the optimizer has no state yet: call build(variables), or take a step, first.")
    calls = sum(map(int, weights["accumulated"]))
    if calls and ACCUMULATOR not in names:
        raise ValueError(
            f"the gradients of {calls} calls wait for a step: take it first, as only Keras can go on."
        )
    return int(given[0][1]), {name: weights[name] for name in names}


def has_complex_variables(optimizer: RMSprop) -> bool:
    """Tell whether an optimizer knows variables of complex numbers."""
    return any(dtypes.is_complex(dtypes.name_of(each.dtype)) for each in optimizer._state.parameters)


def refuse_other_momentum(optimizer: RMSprop, includes_lr: bool, peer: str) -> None:
    """Raise ``ValueError`` if the momentum of an optimizer is not in the units that another framework has."""
    if optimizer.momentum_includes_lr != includes_lr:
        does = "does not include" if includes_lr else "includes"
        raise ValueError(
            f"the momentum of this optimizer {does} the learning rate, other than that of {peer}; expected "
            f"momentum_includes_lr={includes_lr}, as conventions.{peer} has it."
        )
