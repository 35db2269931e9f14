"""The settings of an optimizer: numbers, schedules and callables, read once per step."""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from rmsprop import schedules
from rmsprop.arrays import is_array
from rmsprop.backends import Hyperparameters
from rmsprop.schedules import LearningRateSchedule
from rmsprop.variable import Variable

LARGEST = sys.float_info.max
DEFAULT_EPSILON = 1e-7
SMALLEST_EPSILON = float(np.finfo(np.float32).tiny)  # anything smaller vanishes when cast to float32

Setting = Any
"""A number, 0-d array, `Variable` or callable without arguments; for the learning rate also a schedule."""


class Settings:
    """What an optimizer is told; the base of `rmsprop.RMSprop`, which documents each setting."""

    name: str
    centered: bool
    lazy: bool

    def _read(self, step: int) -> Hyperparameters:
        """Return the numbers of a step; each schedule and callable is called once."""
        has_momentum, placement = self._has_momentum, self._epsilon_in_sqrt
        return Hyperparameters(
            self._learning_rate_at(step),
            _current("rho", self._rho, 0.0, 1.0),
            _current("momentum", self._momentum, 0.0, 1.0) if has_momentum else None,
            self._epsilon,
            has_momentum if placement is None else placement,
            self.centered,
            self._clipvalue,
            self.lazy,
            self._complex_as_real,
        )

    def _learning_rate_at(self, step: int) -> float:
        rate = _current("learning_rate", self._learning_rate, step=step)
        return rate / (1.0 + self._decay * step) if self._decay else rate

    @property
    def learning_rate(self) -> Any:
        """The learning rate as it was given; of a callable, its present value."""
        return _shown(self._learning_rate)

    @learning_rate.setter
    def learning_rate(self, value: Setting) -> None:
        self._learning_rate = _replaced("learning_rate", getattr(self, "_learning_rate", None), value)

    lr = learning_rate

    @property
    def rho(self) -> Any:
        """The decay factor of the moving averages; of a callable, its present value."""
        return _shown(self._rho)

    @rho.setter
    def rho(self, value: Setting) -> None:
        self._rho = _replaced("rho", getattr(self, "_rho", None), value, 0.0, 1.0)

    @property
    def momentum(self) -> Any:
        """The momentum; of a callable, its present value.

        Once it has been anything but the number 0, the formula with momentum is used, with slots of its own.
        """
        return _shown(self._momentum)

    @momentum.setter
    def momentum(self, value: Setting) -> None:
        self._momentum = _replaced("momentum", getattr(self, "_momentum", None), value, 0.0, 1.0)
        is_zero = isinstance(self._momentum, float) and self._momentum == 0.0
        self._has_momentum = getattr(self, "_has_momentum", False) or not is_zero

    @property
    def epsilon(self) -> float:
        """The constant that keeps the denominator from zero."""
        return self._epsilon

    @epsilon.setter
    def epsilon(self, value: float | None) -> None:
        number = _number("epsilon", value or DEFAULT_EPSILON, 0.0)
        if number < SMALLEST_EPSILON:
            raise ValueError(
                f"epsilon must be at least {SMALLEST_EPSILON:.3g}, the smallest float32; given {value!r}."
            )
        self._epsilon = number

    @property
    def decay(self) -> float:
        """The rate at which the learning rate falls: it is divided by ``1 + decay * iterations``."""
        return self._decay

    @decay.setter
    def decay(self, value: float) -> None:
        self._decay = _number("decay", value, 0.0)

    @property
    def clipnorm(self) -> float | None:
        """The largest norm of the gradient of one variable."""
        return self._clipnorm

    @clipnorm.setter
    def clipnorm(self, value: float | None) -> None:
        self._clipnorm = self._limit("clipnorm", value)

    @property
    def clipvalue(self) -> float | None:
        """The largest absolute value of an element of a gradient."""
        return self._clipvalue

    @clipvalue.setter
    def clipvalue(self, value: float | None) -> None:
        self._clipvalue = self._limit("clipvalue", value)

    @property
    def global_clipnorm(self) -> float | None:
        """The largest norm of the gradients of all variables together."""
        return self._global_clipnorm

    @global_clipnorm.setter
    def global_clipnorm(self, value: float | None) -> None:
        self._global_clipnorm = self._limit("global_clipnorm", value)

    def _limit(self, name: str, value: float | None) -> float | None:
        if value is not None and self.gradient_transformers:
            raise ValueError(
                f"`{name}` cannot be set when `gradient_transformers` is set; let these clip. "
                f"Given {name}={value!r}."
            )
        return None if value is None else _number(name, value, 0.0)

    gradient_transformers: Sequence[Callable[..., Any]]
    _complex_as_real: bool
    _epsilon_in_sqrt: bool | None

    def get_config(self) -> dict[str, Any]:
        """Return the settings, in the form of Keras: JSON-serialisable, without the state.

        A callable is stored as its present value. `gradient_aggregator` and `gradient_transformers` are left
        out, as in Keras; settings that Keras does not know, as long as they have their default.

        Examples
        --------
        >>> import rmsprop
        >>> rmsprop.RMSprop(momentum=0.5, clipnorm=1).get_config()
        {'name': 'RMSprop', 'clipnorm': 1.0, 'learning_rate': 0.001, 'decay': 0.0, 'rho': 0.9, 'momentum': 0.5,
         'epsilon': 1e-07, 'centered': False}
        """
        limits = {name: getattr(self, name) for name in ("clipnorm", "clipvalue", "global_clipnorm")}
        own = {"lazy": (self.lazy, True), "epsilon_in_sqrt": (self._epsilon_in_sqrt, None)}
        own["complex_as_real"] = (self._complex_as_real, False)
        return {
            "name": self.name,
            **{name: limit for name, limit in limits.items() if limit is not None},
            "learning_rate": _config_of("learning_rate", self._learning_rate),
            "decay": self._decay,
            "rho": _config_of("rho", self._rho),
            "momentum": _config_of("momentum", self._momentum),
            "epsilon": self._epsilon,
            "centered": self.centered,
            **{name: value for name, (value, default) in own.items() if value != default},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Return a new optimizer with the settings of `get_config`, of this library or of Keras.

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
        """
        config = dict(config)
        if "lr" in config:
            config["learning_rate"] = config.pop("lr")
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = schedules.deserialize(config["learning_rate"], custom_objects)
        return cls(**config)


def learning_rate_of(learning_rate: Setting, lr: Setting) -> Setting:
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
        if isinstance(value, str | bytes | complex | np.complexfloating):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; given {value!r}.") from None
    if not low <= number <= high:  # nor is NaN
        at_least = "" if low == -LARGEST else f" and at least {low:g}"
        expected = f"be finite{at_least}" if high == LARGEST else f"be between [{low:g}, {high:g}]"
        raise ValueError(f"`{name}` must {expected}. Received: {name}={value!r} (of type {type(value)}).")
    return number


def _current(name: str, setting: Setting, low: float = -LARGEST, high: float = LARGEST, step: int = 0) -> float:
    """Return the present value of a setting."""
    if type(setting) is float and low <= setting <= high:  # by far the most frequent, and the fastest
        return setting
    if isinstance(setting, LearningRateSchedule):
        setting = setting(step)
    elif isinstance(setting, Variable):
        setting = setting.array
    elif callable(setting):
        setting = setting()
    return _number(name, setting, low, high)


def _replaced(name: str, old: Setting, new: Setting, low: float = -LARGEST, high: float = LARGEST) -> Setting:
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


def _shown(setting: Setting) -> Any:
    if isinstance(setting, LearningRateSchedule | Variable) or not callable(setting):
        return setting
    return setting()


def _config_of(name: str, setting: Setting) -> Any:
    if isinstance(setting, LearningRateSchedule):
        return schedules.serialize(setting)
    return _current(name, setting)
