"""The settings of an optimizer: numbers, schedules and callables, read once per step."""

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, Self, SupportsFloat, TypeAlias, TypeVar, get_args, overload

import numpy as np

from rmsprop import schedules
from rmsprop.arrays import Array, is_array
from rmsprop.formula import Hyperparameters
from rmsprop.iterations import Iterations
from rmsprop.keras_config import translated
from rmsprop.loss_scale import LossScale
from rmsprop.schedules import LearningRateSchedule
from rmsprop.variable import Variable

LARGEST = sys.float_info.max
DEFAULT_EPSILON = 1e-7
SMALLEST_EPSILON = float(np.finfo(np.float32).tiny)  # anything smaller vanishes when cast to float32

StateDtype: TypeAlias = Literal["bfloat16", "uint8"]
"""What slots can be kept in, other than in full."""
STATE_DTYPES: tuple[StateDtype, ...] = get_args(StateDtype)

Nonfinite: TypeAlias = Literal["propagate", "skip", "raise"]
"""What can become of a step with gradients that are not finite."""
NONFINITE: tuple[Nonfinite, ...] = get_args(Nonfinite)

Value: TypeAlias = SupportsFloat | Callable[[], SupportsFloat]
"""A number, 0-d array, `Variable` or callable without arguments."""

Rate: TypeAlias = Value | LearningRateSchedule
"""What a learning rate can be."""

Kept: TypeAlias = float | Variable | Array
"""What a value is when it is read: as it was given, of a callable the present one. Arrays are of any library."""

Pairs: TypeAlias = list[tuple[Any, Any]]
"""Gradients and variables, which are arrays of any library, `IndexedSlices` or `Variable`."""

Flag: TypeAlias = bool | np.bool_
Transformer: TypeAlias = Callable[[Pairs], Pairs]

Read = TypeVar("Read")
Given = TypeVar("Given")


class Setting(Generic[Read, Given]):
    """An attribute that is checked when it is set, and kept under its name with an underscore.

    Parameters
    ----------
    checked : callable
        Maps the settings' owner, the attribute's name and the value given to the value to keep.
    doc : str
        What the attribute is.
    """

    def __init__(self, checked: Callable[["Settings", str, Given], Any], doc: str) -> None:
        self._checked = checked
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = getattr(self, "_name", name)  # the first of several: `lr` is an alias

    @overload
    def __get__(self, settings: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, settings: "Settings", owner: type | None = None) -> Read: ...
    def __get__(self, settings: Any, owner: type | None = None) -> Any:
        if settings is None:
            return self
        value = settings.__dict__[f"_{self._name}"]
        return value() if self._checked is not _aggregator and _is_read_by_call(value) else value

    def __set__(self, settings: "Settings", value: Given) -> None:
        with settings._lock:  # or else a step that has read the former value might keep it as the constant one
            settings.__dict__[f"_{self._name}"] = self._checked(settings, self._name, value)
            settings._constant = None


def _any(settings: "Settings", name: str, value: Rate) -> Any:
    """Check a value that is read at each step, and may be any finite number."""
    return _replaced(name, settings.__dict__.get(f"_{name}"), value)


def _fraction(settings: "Settings", name: str, value: Value) -> Any:
    """Check a value that is read at each step, and lies in [0, 1]."""
    return _replaced(name, settings.__dict__.get(f"_{name}"), value, 0.0, 1.0)


def _momentum(settings: "Settings", name: str, value: Value) -> Any:
    kept = _fraction(settings, name, value)
    is_zero = isinstance(kept, float) and kept == 0.0
    settings._has_momentum = settings._has_momentum or not is_zero
    return kept


def _not_negative(settings: "Settings", name: str, value: SupportsFloat) -> float:
    return _number(name, value, 0.0)


def _epsilon(settings: "Settings", name: str, value: SupportsFloat | None) -> float:
    number = _number(name, 0.0 if value is None else value, 0.0)
    if 0.0 < number < SMALLEST_EPSILON:
        raise ValueError(
            f"epsilon must be at least {SMALLEST_EPSILON:.3g}, the smallest float32; given {value!r}."
        )
    return number or DEFAULT_EPSILON


def _limit(settings: "Settings", name: str, value: SupportsFloat | None) -> float | None:
    if value is None:
        return None
    if settings._gradient_transformers:
        raise ValueError(
            f"`{name}` cannot be set when `gradient_transformers` is set; let these clip. Given {name}={value!r}."
        )
    return _number(name, value, 0.0)


def _transformers(settings: "Settings", name: str, value: Iterable[Transformer] | None) -> tuple[Transformer, ...]:
    functions: tuple[Any, ...] = () if value is None else tuple(value) if isinstance(value, Iterable) else (value,)
    if isinstance(value, str | bytes) or callable(value) or not all(map(callable, functions)):
        raise TypeError(f"{name} must be a sequence of callables; given {value!r}.")
    for limit in ("clipnorm", "clipvalue", "global_clipnorm"):
        if functions and settings.__dict__.get(f"_{limit}") is not None:
            raise ValueError(f"`gradient_transformers` cannot be set when `{limit}` is set; let them clip.")
    return functions


def _aggregator(settings: "Settings", name: str, value: Transformer | None) -> Transformer | None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable or None; given {value!r}.")
    return value


def _name(settings: "Settings", name: str, value: str | None) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None; given {value!r}.")
    return value or "RMSprop"


def _flag(settings: "Settings", name: str, value: Flag) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; given {value!r}.")
    return bool(value)


def _optional_flag(settings: "Settings", name: str, value: Flag | None) -> bool | None:
    return None if value is None else _flag(settings, name, value)


def _before_slots(settings: "Settings", name: str, value: Flag) -> bool:
    if getattr(settings, "_slots", None) and value != getattr(settings, f"_{name}"):
        raise ValueError(f"{name} determines the dtype of slots, and can't be changed once there are any.")
    return _flag(settings, name, value)


def _state_dtype(settings: "Settings", name: str, value: StateDtype | None) -> StateDtype | None:
    if not (value is None or (isinstance(value, str) and value in STATE_DTYPES)):
        raise ValueError(f"{name} must be None, 'bfloat16' or 'uint8'; given {value!r}.")
    if getattr(settings, "_slots", None) and value != settings.state_dtype:
        raise ValueError(
            f"{name} determines the dtype of slots, and can't be changed once there are any: it is "
            f"{settings.state_dtype!r}; given {value!r}. Give the weights to a new optimizer, by set_weights."
        )
    return value


def _nonfinite(settings: "Settings", name: str, value: Nonfinite) -> Nonfinite:
    if not (isinstance(value, str) and value in NONFINITE):
        raise ValueError(f"{name} must be 'propagate', 'skip' or 'raise'; given {value!r}.")
    _check_dynamic(settings.__dict__.get("_loss_scale"), value)
    return value


def _loss_scale(settings: "Settings", name: str, value: LossScale | None) -> LossScale | None:
    if not (value is None or isinstance(value, LossScale)):
        raise TypeError(f"{name} must be a rmsprop.LossScale or None; given {value!r}.")
    _check_dynamic(value, settings.__dict__["_nonfinite"])
    if value is not None and value._iterations is not None and value._iterations is not settings._iterations:
        raise ValueError(f"{name} is that of another optimizer; expected one of its own, as its steps change it.")
    settings._attach(value)
    return value


def _check_dynamic(loss_scale: LossScale | None, nonfinite: str) -> None:
    if loss_scale is not None and loss_scale.dynamic and nonfinite != "skip":
        raise ValueError(f"a dynamic loss_scale needs nonfinite='skip'; given nonfinite={nonfinite!r}.")


class Settings:
    """What an optimizer is told; the base of `rmsprop.RMSprop`, whose parameters these are."""

    _lock: Any
    _has_momentum = False
    _constant: Hyperparameters | None = None  # the numbers of all steps, if no step can differ
    _gradient_transformers: tuple[Any, ...]
    _iterations: Iterations
    _attach: Callable[[LossScale | None], None]

    name: Setting[str, str | None] = Setting(_name, "What messages and the names of slots begin with.")
    gradient_aggregator: Setting[Transformer | None, Transformer | None] = Setting(
        _aggregator, "What maps pairs to those to use, instead of sums over replicas."
    )
    learning_rate: Setting[Kept | LearningRateSchedule, Rate] = Setting(
        _any, "The learning rate as it was given; of a callable, its present value."
    )
    lr: Setting[Kept | LearningRateSchedule, Rate] = learning_rate
    rho: Setting[Kept, Value] = Setting(
        _fraction, "The decay factor of the averages; of a callable, its present value."
    )
    momentum: Setting[Kept, Value] = Setting(
        _momentum,
        """The momentum; of a callable, its present value.

        Once it has been anything but the number 0, the formula with momentum is used, with slots of its own.
        """,
    )
    epsilon: Setting[float, SupportsFloat | None] = Setting(
        _epsilon, "The constant that keeps the denominator from zero."
    )
    decay: Setting[float, SupportsFloat] = Setting(
        _not_negative, "The learning rate is divided by ``1 + decay * iterations``."
    )
    clipnorm: Setting[float | None, SupportsFloat | None] = Setting(
        _limit, "The largest norm of the gradient of one variable, or None."
    )
    clipvalue: Setting[float | None, SupportsFloat | None] = Setting(
        _limit, "The largest absolute value of an element of a gradient, or None."
    )
    global_clipnorm: Setting[float | None, SupportsFloat | None] = Setting(
        _limit, "The largest norm of all gradients together, or None."
    )
    gradient_transformers: Setting[tuple[Transformer, ...], Iterable[Transformer] | None] = Setting(
        _transformers, "Functions that map pairs to pairs, applied in turn."
    )
    centered: Setting[bool, Flag] = Setting(_flag, "Whether to divide by the standard deviation.")
    lazy: Setting[bool, Flag] = Setting(
        _flag, "Whether a sparse gradient leaves the averages of rows that it does not list."
    )
    epsilon_in_sqrt: Setting[bool | None, Flag | None] = Setting(
        _optional_flag, "Where epsilon is added; None for where Keras does."
    )
    complex_as_real: Setting[bool, Flag] = Setting(_before_slots, "Whether complex numbers count as two reals.")
    state_dtype: Setting[StateDtype | None, StateDtype | None] = Setting(
        _state_dtype, "What slots are kept in: None for full precision, bfloat16 or uint8."
    )
    nonfinite: Setting[Nonfinite, Nonfinite] = Setting(
        _nonfinite, "What becomes of steps with NaN or infinity: propagate, skip or raise."
    )
    loss_scale: Setting[LossScale | None, LossScale | None] = Setting(
        _loss_scale, "The `rmsprop.LossScale` that gradients are divided by, or None."
    )
    validate: Setting[bool, Flag] = Setting(
        _flag, "Whether steps wait for a GPU that checks the rows of sparse gradients."
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name[0] == "_" or hasattr(type(self), name)):
            from difflib import get_close_matches  # takes longer to import than most optimizers need

            close = get_close_matches(name.lower(), SETTINGS, 1, 0.8)
            if close or type(self).__module__.partition(".")[0] == "rmsprop":
                meant = f"; {close[0]!r} was meant?" if close else f". Expected one of {', '.join(SETTINGS)}."
                raise AttributeError(f"{type(self).__name__} has no setting {name!r}{meant}")
        super().__setattr__(name, value)

    def _read(self, step: int) -> Hyperparameters:
        """Return the numbers of a step; each schedule and callable is called once."""
        if self._constant is not None:
            return self._constant
        state = self.__dict__
        has_momentum, placement = self._has_momentum, state["_epsilon_in_sqrt"]
        scale = 1.0 if state["_loss_scale"] is None else state["_loss_scale"].scale
        value, norm, total = (
            limit if (limit := state[name]) is None else limit * scale
            for name in ("_clipvalue", "_clipnorm", "_global_clipnorm")
        )
        hyper = Hyperparameters(
            self._learning_rate_at(step),
            _current("rho", state["_rho"], 0.0, 1.0),
            _current("momentum", state["_momentum"], 0.0, 1.0) if has_momentum else None,
            state["_epsilon"],
            has_momentum if placement is None else placement,
            state["_centered"],
            value,
            norm,
            total,
            state["_lazy"],
            state["_complex_as_real"],
            state["_state_dtype"],
            0 if state["_state_dtype"] is None else step,
            state["_nonfinite"],
            scale,
        )
        is_constant = (
            type(state["_learning_rate"]) is float
            and state["_loss_scale"] is None
            and state["_state_dtype"] is None
            and not state["_decay"]
            and type(state["_rho"]) is float
            and type(state["_momentum"]) is float
        )
        if is_constant:
            self._constant = hyper
        return hyper

    def _depends_on_step(self) -> bool:
        """Tell whether steps differ by their number alone."""
        state = self.__dict__
        is_scheduled = isinstance(state["_learning_rate"], LearningRateSchedule)
        return (
            is_scheduled
            or state["_loss_scale"] is not None
            or bool(state["_decay"])
            or state["_state_dtype"] is not None
        )

    def _learning_rate_at(self, step: int) -> float:
        rate = _current("learning_rate", self.__dict__["_learning_rate"], step=step)
        decay: float = self.__dict__["_decay"]
        return rate / (1.0 + decay * step) if decay else rate

    def get_config(self) -> dict[str, Any]:
        """Return the settings, in the form of Keras: JSON-serialisable, without the state.

        A callable is stored as its present value; if that is a momentum of 0, the copy is one without momentum.
        `gradient_aggregator` and `gradient_transformers` are left
        out, as in Keras; settings that Keras does not know, as long as they have their default.

        Examples
        --------
        >>> import rmsprop
        >>> rmsprop.RMSprop(momentum=0.5, clipnorm=1).get_config()
        {'name': 'RMSprop', 'clipnorm': 1.0, 'learning_rate': 0.001, 'decay': 0.0, 'rho': 0.9, 'momentum': 0.5,
         'epsilon': 1e-07, 'centered': False}
        """
        return self._config({})

    def _config(self, known: dict[str, Any]) -> dict[str, Any]:
        """Return the settings, with what is `known` in place of the present values of some."""
        values = {
            name: known[name] if name in known else _config_of(name, self.__dict__[f"_{name}"])
            for name in ("learning_rate", "rho", "momentum")
        }
        limits = {name: getattr(self, name) for name in ("clipnorm", "clipvalue", "global_clipnorm")}
        own = {
            "lazy": True,
            "epsilon_in_sqrt": None,
            "complex_as_real": False,
            "state_dtype": None,
            "nonfinite": "propagate",
            "validate": False,
        }
        loss_scale = self.loss_scale
        return {
            "name": self.name,
            **{name: limit for name, limit in limits.items() if limit is not None},
            "learning_rate": values["learning_rate"],
            "decay": self.decay,
            "rho": values["rho"],
            "momentum": values["momentum"],
            "epsilon": self.epsilon,
            "centered": self.centered,
            **{name: getattr(self, name) for name, default in own.items() if getattr(self, name) != default},
            **({} if loss_scale is None else {"loss_scale": loss_scale.get_config()}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Return a new optimizer with the settings of `get_config`: of this library, or of an RMSprop of Keras.

        That of Keras 3 and the present one of tf_keras add `epsilon` inside of the root, clip by one limit alone,
        and not by 0: so does the optimizer that is made of their settings. Sparse gradients follow `lazy`.

        Parameters
        ----------
        config : dict
            It is not changed.
        custom_objects : dict of str to class, optional
            Classes of your own schedules, by name.

        Raises
        ------
        TypeError
            If a key is unknown, or the class of a schedule.
        ValueError
            If a setting asks for what is not done here: weight decay, averages of the variables, accumulation of
            gradients, a constant loss scale.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"config must be a dict as get_config returns it; given {config!r}.")
        config = translated(config, inspect.signature(cls).parameters)
        if "lr" in config:
            config["learning_rate"] = config.pop("lr")
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = schedules.deserialize(config["learning_rate"], custom_objects)
        if isinstance(config.get("loss_scale"), dict):
            config["loss_scale"] = LossScale(**config["loss_scale"])
        # The constructor refuses both norms, but one can be assigned later.
        later = config.pop("global_clipnorm", None) if config.get("clipnorm") is not None else None
        optimizer = cls(**config)
        if later is not None:
            optimizer.global_clipnorm = later
        return optimizer


SETTINGS = [name for name, each in vars(Settings).items() if isinstance(each, Setting)]


def learning_rate_of(learning_rate: Rate, lr: Rate | None) -> Rate:
    """Return `lr` where it is given, with the warning of Keras."""
    if lr is None:
        return learning_rate
    warnings.warn("The `lr` argument is deprecated, use `learning_rate` instead.", UserWarning, stacklevel=3)
    if isinstance(lr, int | float) and lr < 0:
        raise ValueError(f"Expected lr >= 0, received: {lr}")
    return lr


def _number(name: str, value: Any, low: float = -LARGEST, high: float = LARGEST) -> float:
    """Return a number as a float; it must be finite and in range."""
    try:
        # Early NumPy 2 makes numbers of arrays of one element.
        if isinstance(value, str | bytes | complex | np.complexfloating) or getattr(value, "ndim", 0) != 0:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; given {value!r}.") from None
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not low <= number <= high:  # nor is NaN
        at_least = "" if low == -LARGEST else f" and at least {low:g}"
        expected = f"be finite{at_least}" if high == LARGEST else f"be between [{low:g}, {high:g}]"
        raise ValueError(f"`{name}` must {expected}. Received: {name}={value!r} (of type {type(value)}).")
    return number


def _current(name: str, setting: Any, low: float = -LARGEST, high: float = LARGEST, step: int = 0) -> float:
    """Return the present value of a setting."""
    if type(setting) is not float:
        if isinstance(setting, LearningRateSchedule):
            setting = setting(step)
        elif isinstance(setting, Variable):
            setting = setting.array
        elif callable(setting):
            setting = setting()
    if type(setting) is float and low <= setting <= high:  # by far the most frequent, and the fastest
        return setting
    return _number(name, setting, low, high)


def _replaced(name: str, old: Any, new: Any, low: float = -LARGEST, high: float = LARGEST) -> Any:
    """Return what a setting becomes when `new` is assigned to it.

    As in Keras, a `Variable` stays the setting, and takes the new value. Callables and schedules are read at
    each step, numbers only now.
    """
    if isinstance(new, LearningRateSchedule):
        if name != "learning_rate":
            raise ValueError(f"{name} can't be a schedule, only learning_rate can; given {new!r}.")
        return new
    if callable(new) and not is_array(new):
        return new
    number = _current(name, new, low, high)
    if isinstance(new, Variable) or is_array(new):
        return new
    return old.assign(number) if isinstance(old, Variable) else number


def _is_read_by_call(value: Any) -> bool:
    return callable(value) and not isinstance(value, LearningRateSchedule | Variable)


def _config_of(name: str, setting: Any) -> Any:
    if isinstance(setting, LearningRateSchedule):
        return schedules.serialize(setting)
    return _current(name, setting)
