"""Bounds on real arrays, in the forms of SciPy, and projections: what keeps the point where it may be."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Host, as_beside, namespace, unrecorded
from rmsprop.backends import is_updated_in_place
from rmsprop.minimization.point import Point
from rmsprop.variables.variable import Variable, array_of

Limit = float | Host
Update = Callable[[], None]
"""Changes the point in place."""


def updates_of(point: Point, bounds: Any, projection: Any) -> tuple[list[Update], list[Update]]:
    """Return what clips the point, to be done before the first evaluation, and all that is done after each step.

    Raises
    ------
    TypeError, ValueError
        If bounds or projection are none.
    """
    if projection is not None and not callable(projection):
        raise TypeError(f"projection must be a function of x or None; given {projection!r}.")
    given = [] if bounds is None else point.matched(bounds, "bounds")
    found = zip(point.names, point.variables, given, strict=True) if given else ()
    clips: list[Update] = [
        partial(_clip, variable, *_beside(array_of(variable), _limits(of_array, array_of(variable), name)))
        for name, variable, of_array in found
        if of_array is not None
    ]
    return clips, [*([] if projection is None else [partial(_project, point, projection)]), *clips]


def _project(point: Point, projection: Callable[[Any], Any]) -> None:
    """Copy into the point what a projection returns."""
    values = projection(point.x)
    if values is None:
        raise TypeError("projection returned None; it must return x, also if it has changed it in place.")
    point.assign(point.matched(values, "what projection returns"), "what projection returns")


def _clip(variable: Any, low: Any, high: Any) -> None:
    array = array_of(variable)
    with unrecorded(array):
        if is_updated_in_place(array) and hasattr(array, "__array_ufunc__"):
            if low is not None:
                np.maximum(array, low, out=array)
            if high is not None:
                np.minimum(array, high, out=array)
            return
        xp = namespace(array)
        if low is not None:
            array = xp.where(array < low, low, array)
        if high is not None:
            array = xp.where(array > high, high, array)
        if isinstance(variable, Variable):
            variable.assign(array)
        else:
            variable[...] = array


def _beside(array: Array, limits: tuple[Limit, Limit]) -> list[Any]:
    """Return limits as arrays like that which they belong to; None where there is none."""
    kept: list[Any] = []
    for limit, absent in zip(limits, (-np.inf, np.inf), strict=True):
        if np.all(limit == absent):
            kept.append(None)
        else:
            with unrecorded(array):
                kept.append(as_beside(limit, array, array.dtype))
    return kept


def _limits(bounds: Any, array: Array, name: str) -> tuple[Limit, Limit]:
    """Return the lower and the upper limits of an array, from any of the forms of SciPy."""
    shape = tuple(array.shape)
    if dtypes.is_complex(dtypes.name_of(array.dtype)):
        raise TypeError(
            f"bounds of {name!r}, which is complex, have no meaning; let projection(x) return what x becomes "
            f"after each step."
        )
    low, high = _ends(bounds, shape, name)
    if np.any(np.isnan(low)) or np.any(np.isnan(high)):
        raise ValueError(f"bounds of {name!r} must be numbers; given {bounds!r}.")
    if np.any(np.greater(low, high)):
        raise ValueError(f"bounds of {name!r}: a lower one is greater than the upper one; given {bounds!r}.")
    return low, high


def _ends(bounds: Any, shape: tuple[int, ...], name: str) -> tuple[Limit, Limit]:
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        try:
            low, high = (np.broadcast_to(np.asarray(end, float), shape) for end in (bounds.lb, bounds.ub))
        except ValueError:
            raise ValueError(f"bounds of {name!r} must fit its shape {shape}; given {bounds!r}.") from None
        return low, high
    if _is_pair(bounds):
        return _number(bounds[0], -np.inf), _number(bounds[1], np.inf)
    given = bounds.tolist() if isinstance(bounds, np.ndarray) else bounds
    pairs: list[Any] = list(given) if isinstance(given, Sequence | zip) else [None]
    size = int(np.prod(shape))
    if len(pairs) != size or not all(map(_is_pair, pairs)):
        raise ValueError(
            f"bounds of {name!r} must be a pair (low, high) for all of its elements, a list of {size} pairs, one "
            f"for each, or a scipy.optimize.Bounds; given {bounds!r}."
        )
    ends = np.array([(_number(low, -np.inf), _number(high, np.inf)) for low, high in pairs], float).reshape(-1, 2)
    return ends[:, 0].reshape(shape), ends[:, 1].reshape(shape)


def _is_pair(bounds: Any) -> bool:
    is_two = isinstance(bounds, Sequence | np.ndarray) and not isinstance(bounds, str) and len(bounds) == 2
    return is_two and all([end is None or isinstance(end, Real | np.number) for end in bounds])


def _number(end: Any, absent: float) -> float:
    return absent if end is None else float(end)
