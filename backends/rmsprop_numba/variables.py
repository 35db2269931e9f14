"""Where NumPy arrays lie in memory, and whether they can be updated there."""

from collections.abc import Hashable
from typing import Any

import numpy as np

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
