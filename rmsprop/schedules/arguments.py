"""Arguments of the built-in schedules, and of a step: what is accepted for each."""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from numbers import Integral, Real
from typing import Any


def check_step(step: Any) -> float:
    """Return a step, a real scalar of any library or a counter that knows ``__int__`` only, as a finite float."""
    plain = step.item() if hasattr(step, "item") else step
    if isinstance(plain, bool | complex | str | bytes):  # of which Python makes floats, or NumPy with a warning
        raise TypeError(f"step must be a real number, or an array of these; got {step!r}")
    try:
        number = float(plain if hasattr(plain, "__float__") else int(plain))
    except TypeError:
        raise TypeError(f"step must be a real number, or an array of these; got {step!r}") from None
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"step must be finite, got {step!r}")
    return number


def check_number(name: str, value: Any) -> float:
    """Return `value`, a real scalar of any library, as a finite Python int or float."""
    plain = value.item() if getattr(value, "shape", None) == () else value
    # A bool in a number's place is nearly always `staircase` or `cycle` passed one position too early.
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    plain = int(plain) if isinstance(plain, Integral) else float(plain)
    if not abs(plain) <= sys.float_info.max:  # also true of NaN, and of an int too large for a float
        raise ValueError(f"{name} must be finite, got {value!r}")
    return plain


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a finite Python number above 0."""
    number = check_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}")
    return number


def check_non_negative(name: str, value: Any) -> float:
    """Return `value` as a finite Python number that is not below 0."""
    number = check_number(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {value!r}")
    return number


def check_optional_number(name: str, value: Any) -> float | None:
    """Return `value` as a finite Python number, or None."""
    return None if value is None else check_number(name, value)


def check_numbers(name: str, values: Any) -> tuple[float, ...]:
    """Return `values` as a tuple of finite Python numbers."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of real numbers, got {values!r}")
    return tuple(check_number(f"{name}[{i}]", value) for i, value in enumerate(values))


def check_increasing(name: str, values: Any) -> tuple[float, ...]:
    """Return `values` as a tuple of finite Python numbers, each greater than the one before."""
    numbers = check_numbers(name, values)
    if any(low >= high for low, high in pairwise(numbers)):
        raise ValueError(f"{name} must increase strictly, got {values!r}")
    return numbers


def check_flag(name: str, value: Any) -> bool:
    """Return `value`, which must be true, false, 0 or 1, as a bool."""
    plain = value.item() if getattr(value, "shape", None) == () else value
    if not isinstance(plain, int) or plain not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(plain)


def check_name(name: str, value: Any) -> str | None:
    """Return `value`, which must be a string or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None, got {value!r}")
    return value


# By argument, since an argument of one name means the same in every schedule; the others take any number.
CHECKS: dict[str, Callable[[str, Any], object]] = {
    "decay_steps": check_positive,
    "first_decay_steps": check_positive,
    "t_mul": check_positive,
    "warmup_steps": check_non_negative,
    "warmup_target": check_optional_number,
    "boundaries": check_increasing,
    "values": check_numbers,
    "staircase": check_flag,
    "cycle": check_flag,
    "name": check_name,
}
