"""Checks of settings: each returns what is to be kept of a value, or raises an error that says what was expected.

Those that take `values` are given the settings as they are kept, by name, of which some exclude each other.
"""

import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat, TypeAlias, TypedDict, get_args

import numpy as np

from rmsprop.arrays.libraries import Array, is_array
from rmsprop.formula import TINY
from rmsprop.schedules import LearningRateSchedule
from rmsprop.state.loss_scale import LossScale
from rmsprop.variables.variable import Variable

LARGEST = sys.float_info.max
SCHEDULED = ("learning_rate", "weight_decay")
"""The settings that can be schedules."""
DEFAULT_EPSILON = 1e-7
SMALLEST_EPSILON = TINY  # anything smaller vanishes when cast to float32

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

Values: TypeAlias = Mapping[str, Any]


def number(name: str, value: Any, low: float = -LARGEST, high: float = LARGEST) -> float:
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


def current(name: str, setting: Any, low: float = -LARGEST, high: float = LARGEST, step: int = 0) -> float:
    """Return the present value of a setting that is read at each step."""
    if type(setting) is not float:
        if isinstance(setting, LearningRateSchedule):
            setting = setting(step)
        elif isinstance(setting, Variable):
            setting = setting.array
        elif callable(setting):
            setting = setting()
    if type(setting) is float and low <= setting <= high:  # by far the most frequent, and the fastest
        return setting
    return number(name, setting, low, high)


def is_read_by_call(setting: Any) -> bool:
    """Tell whether the present value of a setting is what a call of it returns."""
    return callable(setting) and not isinstance(setting, LearningRateSchedule | Variable)


def any_number(values: Values, name: str, value: Rate) -> Any:
    """Check a value that is read at each step, and may be any finite number."""
    return _replaced(name, values.get(name), value)


def fraction(values: Values, name: str, value: Value) -> Any:
    """Check a value that is read at each step, and lies in [0, 1]."""
    return _replaced(name, values.get(name), value, 0.0, 1.0)


def decay_of_weights(values: Values, name: str, value: Rate | None) -> Any:
    """Check a weight decay that is read at each step, of which None means 0."""
    return _replaced(name, values.get(name), 0.0 if value is None else value, 0.0)


def _replaced(name: str, old: Any, new: Any, low: float = -LARGEST, high: float = LARGEST) -> Any:
    """Return what a setting becomes when `new` is assigned to it.

    As in Keras, a `Variable` stays the setting, and takes the new value. Callables and schedules are read at
    each step, numbers only now.
    """
    if isinstance(new, LearningRateSchedule):
        if name not in SCHEDULED:
            raise ValueError(f"{name} can't be a schedule, only {' and '.join(SCHEDULED)} can; given {new!r}.")
        return new
    if callable(new) and not is_array(new):
        return new
    present = current(name, new, low, high)
    if isinstance(new, Variable) or is_array(new):
        return new
    return old.assign(present) if isinstance(old, Variable) else present


def not_negative(values: Values, name: str, value: SupportsFloat) -> float:
    """Check a number from 0 on."""
    return number(name, value, 0.0)


class Epsilon(TypedDict):
    """A constant that keeps the denominator from zero, and where it is added."""

    epsilon: float
    epsilon_in_sqrt: bool


def where_added(epsilon: float, in_sqrt: bool) -> Epsilon:
    """Return the settings for an epsilon of another framework, where 0 means none.

    In its place, the smallest normal number of single precision lets 0 / 0 be 0, where the framework has NaN.
    Outside of the root it changes no other quotient; inside, it would outweigh squares of gradients below 1e-19.
    """
    if epsilon == 0.0:
        return Epsilon(epsilon=SMALLEST_EPSILON, epsilon_in_sqrt=False)
    return Epsilon(epsilon=epsilon, epsilon_in_sqrt=in_sqrt)


def epsilon(values: Values, name: str, value: SupportsFloat | None) -> float:
    """Check `epsilon`, of which 0 and None mean the default."""
    given = number(name, 0.0 if value is None else value, 0.0)
    if 0.0 < given < SMALLEST_EPSILON:
        raise ValueError(
            f"epsilon must be at least {SMALLEST_EPSILON:.3g}, the smallest float32; given {value!r}."
        )
    return given or DEFAULT_EPSILON


def limit(values: Values, name: str, value: SupportsFloat | None) -> float | None:
    """Check a limit of clipping."""
    return None if value is None else number(name, value, 0.0)


def whole(values: Values, name: str, value: int) -> int:
    """Check a whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; given {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; given {value!r}.")
    return int(value)


def optional_whole(values: Values, name: str, value: int | None) -> int | None:
    """Check a whole number from 1 on, or None."""
    return None if value is None else whole(values, name, value)


def constant_fraction(values: Values, name: str, value: SupportsFloat) -> float:
    """Check a number in [0, 1]."""
    return number(name, value, 0.0, 1.0)


def transformers(values: Values, name: str, value: Iterable[Transformer] | None) -> tuple[Transformer, ...]:
    """Check a sequence of functions."""
    functions: tuple[Any, ...] = () if value is None else tuple(value) if isinstance(value, Iterable) else (value,)
    if isinstance(value, str | bytes) or callable(value) or not all(map(callable, functions)):
        raise TypeError(f"{name} must be a sequence of callables; given {value!r}.")
    return functions


def aggregator(values: Values, name: str, value: Transformer | None) -> Transformer | None:
    """Check a function of pairs, or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable or None; given {value!r}.")
    return value


def checked_patterns(var_names: Sequence[str] | None) -> list[str]:
    """Return regular expressions as a list, after checking that they are."""
    if isinstance(var_names, str) or not all(isinstance(name, str) for name in var_names or ()):
        raise TypeError(f"var_names must be a list of strings; given {var_names!r}.")
    for pattern in var_names or ():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"var_names must be regular expressions; given {pattern!r}: {error}.") from None
    return list(var_names or ())


def text(values: Values, name: str, value: str | None) -> str:
    """Check a name, of which an empty one and None mean the default."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None; given {value!r}.")
    return value or "RMSprop"


def flag(values: Values, name: str, value: Flag) -> bool:
    """Check that a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; given {value!r}.")
    return bool(value)


def optional_flag(values: Values, name: str, value: Flag | None) -> bool | None:
    """Check that a value is True, False or None."""
    return None if value is None else flag(values, name, value)


def state_dtype(values: Values, name: str, value: StateDtype | None) -> StateDtype | None:
    """Check what slots are to be kept in."""
    if not (value is None or (isinstance(value, str) and value in STATE_DTYPES)):
        raise ValueError(f"{name} must be None, 'bfloat16' or 'uint8'; given {value!r}.")
    return value


def nonfinite(values: Values, name: str, value: Nonfinite) -> Nonfinite:
    """Check what is to become of steps that are not finite."""
    if not (isinstance(value, str) and value in NONFINITE):
        raise ValueError(f"{name} must be 'propagate', 'skip' or 'raise'; given {value!r}.")
    _check_dynamic(values.get("loss_scale"), value)
    return value


def loss_scale(values: Values, name: str, value: LossScale | None) -> LossScale | None:
    """Check a loss scale; a dynamic one needs steps to be left out."""
    if not (value is None or isinstance(value, LossScale)):
        raise TypeError(f"{name} must be a rmsprop.LossScale or None; given {value!r}.")
    _check_dynamic(value, values["nonfinite"])
    return value


def _check_dynamic(loss_scale: LossScale | None, nonfinite: str) -> None:
    if loss_scale is not None and loss_scale.dynamic and nonfinite != "skip":
        raise ValueError(f"a dynamic loss_scale needs nonfinite='skip'; given nonfinite={nonfinite!r}.")
