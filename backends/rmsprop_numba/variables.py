"""Where NumPy arrays lie in memory, and whether they can be updated there."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from rmsprop.backends import Gradient
from rmsprop.indexed_slices import IndexedSlices

Array = np.ndarray[Any, Any]


def memory(array: Array) -> Hashable:
    """Return what two views of the same elements have in common."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


def check_variable(array: Array) -> None:
    """Raise ``TypeError`` or ``ValueError`` if an array can't be updated in place."""
    kind = type(array)
    if kind is not np.ndarray and kind is not np.memmap:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__} can't be updated: its mask, unit or other meaning would be lost. "
            f"Expected a plain numpy.ndarray."
        )
    if not array.flags.writeable:
        raise ValueError("the array is read-only; expected one that can be written to.")
    if not array.dtype.isnative:
        raise TypeError(f"the array has byte order {array.dtype.str!r}; expected this machine's own.")


def zeros(like: Array, dtype: str) -> Array:
    """Return zeros with the shape and order of axes of an array, without gaps."""
    return np.zeros_like(like, dtype=dtype, order="K", subok=False)


def in_range(indices: Array, rows: int) -> bool:
    """Tell whether all indices are those of rows."""
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < rows)


def overlapping(arrays: Sequence[Array]) -> tuple[int, int] | None:
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


def _overlaps_itself(array: Array) -> bool:
    """Tell whether elements may share memory, which only strides made by hand lead to."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach + array.itemsize:
            return True
        reach += stride * (n - 1)
    return False


def disjoint(gradient: Gradient, owners: set[int]) -> Gradient:
    """Return a gradient as it is, or a copy if it lies in the memory of a variable that is being updated."""
    if isinstance(gradient, IndexedSlices):
        return IndexedSlices(disjoint(gradient.values, owners), gradient.indices)
    return gradient.copy() if id(owner(gradient)) in owners else gradient


def owner(array: Any) -> Any:
    """Return the object that a view was, in the end, taken from."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array
