"""The settings of an optimizer, a row for each: its name, check and default, what it is and what hangs on it."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Self, SupportsFloat, TypeVar, overload

from rmsprop import schedules
from rmsprop.formula import OPTIONAL, Hyperparameters
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings import checks
from rmsprop.settings.checks import (
    DEFAULT_EPSILON,
    SCHEDULED,
    Flag,
    Kept,
    Nonfinite,
    Rate,
    StateDtype,
    Transformer,
    Value,
    Values,
    current,
    is_read_by_call,
)
from rmsprop.settings.keras_config import translated
from rmsprop.settings.settings import READ, Settings
from rmsprop.state.loss_scale import LossScale

Read = TypeVar("Read")
Given = TypeVar("Given")


class Setting(Generic[Read, Given]):
    """A setting, as an attribute of the optimizer that is checked when it is set.

    Parameters
    ----------
    check : callable
        Maps the settings as they are kept, the name and the value given to the value to keep.
    default : object
        As the constructor has it.
    doc : str
        What the attribute is.
    is_of_keras : bool, default True
        Whether a config always has it. Those that Keras does not know are there if they are not the default.
    is_code : bool, default False
        Whether it consists of functions, which no config has.
    decides_on_slots : bool, default False
        Whether slots are made by it, so that it can't change once there are any.
    is_captured : bool, default False
        Whether all replays of a captured step have it in common.
    apply : callable, optional
        Called with the settings and the value to keep before that is kept.
    """

    def __init__(
        self,
        check: Callable[[Values, str, Given], Any],
        default: Given,
        doc: str,
        *,
        is_of_keras: bool = True,
        is_code: bool = False,
        decides_on_slots: bool = False,
        is_captured: bool = False,
        apply: Callable[[Settings, Any], None] | None = None,
    ) -> None:
        self.check, self.default, self.__doc__ = check, default, doc
        self.is_of_keras, self.is_code, self.decides_on_slots = is_of_keras, is_code, decides_on_slots
        self.is_captured, self.apply = is_captured, apply
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name  # the first of several: `lr` is an alias

    @overload
    def __get__(self, optimizer: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, optimizer: "HasSettings", owner: type | None = None) -> Read: ...
    def __get__(self, optimizer: Any, owner: type | None = None) -> Any:
        if optimizer is None:
            return self
        value = optimizer._settings.values[self.name]
        return value() if self.name in READ and is_read_by_call(value) else value

    def __set__(self, optimizer: "HasSettings", value: Given) -> None:
        settings = optimizer._settings
        # Without the lock, a step that has read the former value might keep it as the constant one.
        with settings.state.lock:
            kept = self.check(settings.values, self.name, value)
            if self.decides_on_slots and settings.state.slot_names and kept != settings.values[self.name]:
                raise ValueError(
                    f"{self.name} determines the dtype of slots, and can't be changed once there are any: it is "
                    f"{settings.values[self.name]!r}; given {value!r}. Give the weights to a new optimizer, by "
                    f"set_weights."
                )
            if self.apply is not None:
                self.apply(settings, kept)
            settings.values[self.name] = kept
            settings.constant = None


def _choose_formula(settings: Settings, momentum: Any) -> None:
    is_zero = isinstance(momentum, float) and momentum == 0.0
    settings.has_momentum = settings.has_momentum or not is_zero


def _follow(settings: Settings, loss_scale: LossScale | None) -> None:
    settings.state.attach(loss_scale)


class HasSettings:
    """The settings as attributes, in the order of a config; a base of `rmsprop.RMSprop`."""

    _settings: Settings

    name: Setting[str, str | None] = Setting(
        checks.text, "RMSprop", "What messages and the names of slots begin with."
    )
    gradient_aggregator: Setting[Transformer | None, Transformer | None] = Setting(
        checks.aggregator, None, "What maps pairs to those to use, instead of sums over replicas.", is_code=True
    )
    gradient_transformers: Setting[tuple[Transformer, ...], Iterable[Transformer] | None] = Setting(
        checks.transformers, None, "Functions that map pairs to pairs, applied in turn.", is_code=True
    )
    clipnorm: Setting[float | None, SupportsFloat | None] = Setting(
        checks.limit, None, "The largest norm of the gradient of one variable, or None.", is_captured=True
    )
    clipvalue: Setting[float | None, SupportsFloat | None] = Setting(
        checks.limit, None, "The largest absolute value of an element of a gradient, or None.", is_captured=True
    )
    global_clipnorm: Setting[float | None, SupportsFloat | None] = Setting(
        checks.limit, None, "The largest norm of all gradients together, or None.", is_captured=True
    )
    learning_rate: Setting[Kept | LearningRateSchedule, Rate] = Setting(
        checks.any_number, 0.001, "The learning rate as it was given; of a callable, its present value."
    )
    lr: Setting[Kept | LearningRateSchedule, Rate] = learning_rate
    decay: Setting[float, SupportsFloat] = Setting(
        checks.not_negative, 0.0, "The learning rate is divided by ``1 + decay * iterations``."
    )
    rho: Setting[Kept, Value] = Setting(
        checks.fraction, 0.9, "The decay factor of the averages; of a callable, its present value."
    )
    momentum: Setting[Kept, Value] = Setting(
        checks.fraction,
        0.0,
        """The momentum; of a callable, its present value.

        Once it has been anything but the number 0, the formula with momentum is used, with slots of its own.
        """,
        apply=_choose_formula,
    )
    epsilon: Setting[float, SupportsFloat | None] = Setting(
        checks.epsilon, DEFAULT_EPSILON, "The constant that keeps the denominator from zero."
    )
    centered: Setting[bool, Flag] = Setting(
        checks.flag, False, "Whether to divide by the standard deviation.", is_captured=True
    )
    lazy: Setting[bool, Flag] = Setting(
        checks.flag,
        True,
        "Whether a sparse gradient leaves the averages of rows that it does not list.",
        is_of_keras=False,
    )
    epsilon_in_sqrt: Setting[bool | None, Flag | None] = Setting(
        checks.optional_flag, None, "Where epsilon is added; None for where Keras does.", is_of_keras=False
    )
    complex_as_real: Setting[bool, Flag] = Setting(
        checks.flag,
        False,
        "Whether complex numbers count as two reals.",
        is_of_keras=False,
        decides_on_slots=True,
        is_captured=True,
    )
    state_dtype: Setting[StateDtype | None, StateDtype | None] = Setting(
        checks.state_dtype,
        None,
        "What slots are kept in: None for full precision, bfloat16 or uint8.",
        is_of_keras=False,
        decides_on_slots=True,
    )
    nonfinite: Setting[Nonfinite, Nonfinite] = Setting(
        checks.nonfinite,
        "propagate",
        "What becomes of steps with NaN or infinity: propagate, skip or raise.",
        is_of_keras=False,
        is_captured=True,
    )
    validate: Setting[bool, Flag] = Setting(
        checks.flag,
        False,
        "Whether steps wait for a GPU that checks the rows of sparse gradients.",
        is_of_keras=False,
    )
    loss_scale: Setting[LossScale | None, LossScale | None] = Setting(
        checks.loss_scale,
        None,
        "The `rmsprop.LossScale` that gradients are divided by, or None.",
        is_of_keras=False,
        is_captured=True,
        apply=_follow,
    )

    weight_decay: Setting[Kept | LearningRateSchedule, Rate | None] = Setting(
        checks.decay_of_weights,
        0.0,
        "The weight decay as it was given; of a callable, its present value.",
        is_of_keras=False,
    )
    decoupled: Setting[bool, Flag] = Setting(
        checks.flag,
        False,
        "Whether weight decay shrinks variables, past averages and clipping.",
        is_of_keras=False,
    )
    nesterov: Setting[bool, Flag] = Setting(
        checks.flag, False, "Whether the momentum is Nesterov's.", is_of_keras=False
    )
    bias_correction: Setting[bool, Flag] = Setting(
        checks.flag, False, "Whether averages are corrected for their start at zero.", is_of_keras=False
    )
    initial_accumulator: Setting[float, SupportsFloat] = Setting(
        checks.not_negative, 0.0, "What the average of squares of a new variable begins at.", is_of_keras=False
    )
    momentum_includes_lr: Setting[bool, Flag] = Setting(
        checks.flag, True, "Whether the momentum gathers steps, rather than directions.", is_of_keras=False
    )
    maximize: Setting[bool, Flag] = Setting(checks.flag, False, "Whether steps lead uphill.", is_of_keras=False)
    use_ema: Setting[bool, Flag] = Setting(
        checks.flag, False, "Whether variables are averaged over the steps.", is_of_keras=False
    )
    ema_momentum: Setting[float, SupportsFloat] = Setting(
        checks.constant_fraction, 0.99, "The decay factor of the averages of variables.", is_of_keras=False
    )
    ema_overwrite_frequency: Setting[int | None, int | None] = Setting(
        checks.optional_whole,
        None,
        "After how many steps, each time, variables are set to their averages; None for never.",
        is_of_keras=False,
    )
    accumulate: Setting[int, int] = Setting(
        checks.whole, 1, "Of how many calls the mean gradient makes one step.", is_of_keras=False
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name[0] == "_" or hasattr(type(self), name)):
            from difflib import get_close_matches  # takes longer to import than most optimizers need

            known = [*ROWS, "lr"]
            close = get_close_matches(name.lower(), known, 1, 0.8)
            if close or type(self).__module__.partition(".")[0] == "rmsprop":
                meant = f"; {close[0]!r} was meant?" if close else f". Expected one of {', '.join(known)}."
                raise AttributeError(f"{type(self).__name__} has no setting {name!r}{meant}")
        super().__setattr__(name, value)


ROWS: dict[str, Setting[Any, Any]] = {
    row.name: row for row in vars(HasSettings).values() if isinstance(row, Setting)
}


def captured(hyper: Hyperparameters) -> dict[str, Any]:
    """Return the hyperparameters that all replays of a captured step have in common."""
    numbers = hyper.numbers_of()
    terms = {
        "having momentum": hyper.momentum is not None,
        **{f"having {name}": getattr(numbers, name) is not None for name in OPTIONAL},
    }
    return terms | {name: getattr(hyper, name) for name, row in ROWS.items() if row.is_captured}


def config_of(values: Values, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form of Keras, with what is `told` in place of the present values of some.

    The limits of clipping, too, are there only if there are any.
    """
    shown = [
        name
        for name, row in ROWS.items()
        if not row.is_code and ((row.is_of_keras and row.default is not None) or values[name] != row.default)
    ]
    return {name: told[name] if name in told else _stored(name, values[name]) for name in shown}


def _stored(name: str, value: Any) -> Any:
    """Return a setting as JSON can hold it."""
    if isinstance(value, LearningRateSchedule):
        return schedules.serialize(value)
    if isinstance(value, LossScale):
        return value.get_config()
    return current(name, value) if name in READ else value


def given_by(config: Any, constructor: Callable[..., Any], custom_objects: Any) -> dict[str, Any]:
    """Return the arguments of the constructor that a config stands for; see `rmsprop.RMSprop.from_config`."""
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a dict as get_config returns it; given {config!r}.")
    given = translated(config, inspect.signature(constructor).parameters, ROWS)
    if "lr" in given:
        given["learning_rate"] = given.pop("lr")
    for name in SCHEDULED:
        if isinstance(given.get(name), dict):
            given[name] = schedules.deserialize(given[name], custom_objects)
    if isinstance(given.get("loss_scale"), dict):
        given["loss_scale"] = LossScale(**given["loss_scale"])
    return given


def learning_rate_of(learning_rate: Rate, lr: Rate | None) -> Rate:
    """Return `lr` where it is given, with the warning of Keras."""
    if lr is None:
        return learning_rate
    warnings.warn("The `lr` argument is deprecated, use `learning_rate` instead.", UserWarning, stacklevel=3)
    if isinstance(lr, int | float) and lr < 0:
        raise ValueError(f"Expected lr >= 0, received: {lr}")
    return lr
