"""Memory that arrays share, told from addresses and strides alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import DType, Host


class Place(NamedTuple):
    """Where a view lies in the array that it was taken from."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DType


def overlapping(arrays: Sequence[Host]) -> tuple[int, int] | None:
    """Return the positions of two arrays that share memory, or of one twice whose own elements do."""
    bounds = [(*np.lib.array_utils.byte_bounds(array), i) for i, array in enumerate(arrays) if array.size]
    open_ones: list[tuple[int, int]] = []  # (end, position) of arrays that reach beyond the present start
    for start, stop, i in sorted(bounds):
        if _overlaps_itself(arrays[i]):
            return i, i
        open_ones = [(end, j) for end, j in open_ones if end > start]
        for _, j in open_ones:
            if np.shares_memory(arrays[i], arrays[j]):
                return j, i
        open_ones.append((stop, i))
    return None


def _overlaps_itself(array: Host) -> bool:
    """Tell whether elements may share memory, which only strides made by hand lead to."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach + array.itemsize:
            return True
        reach += stride * (n - 1)
    return False


def strides_of(array: Any) -> tuple[int, ...]:
    """Return the strides of an array, 0 where they lead nowhere: along axes of length 1, or if it is empty."""
    shape = array.shape
    if 1 not in shape and 0 not in shape:
        return array.strides  # type: ignore[no-any-return]
    return tuple([s if n > 1 and 0 not in shape else 0 for s, n in zip(array.strides, shape, strict=True)])


def root(array: Host) -> Host:
    """Return the last array on the way to what a view was, in the end, taken from."""
    found, base = array, array.base
    while base is not None:
        found, base = base if isinstance(base, np.ndarray) else found, getattr(base, "base", None)
    return found


def owner(array: Any) -> Any:
    """Return the object that a view was, in the end, taken from."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array
