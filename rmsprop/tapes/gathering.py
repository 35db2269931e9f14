"""Gradients of the reading of rows, which are sparse where a source is only read by arrays of integers."""

from collections.abc import Callable
from typing import Any

import autograd.numpy
import numpy as np
from autograd.numpy.numpy_boxes import ArrayBox

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host

Backward = Callable[[Host], tuple[Any]]
"""What maps the gradient by a result to that by the one argument."""


def reading_of(function: Any) -> Callable[[bool, Any, Any], Backward | None] | None:
    """Return what makes the gradient of a reading, if a primitive of autograd's is one.

    It gets whether the array is a source, and the arguments. It returns None where autograd knows better.
    """
    return _READINGS.get(function)


def _of_getitem(is_source: bool, args: Any, kwargs: Any) -> Backward | None:
    array, key = args
    rows = _rows(key, array.shape[0]) if is_source and array.shape else None
    return None if rows is None else _of_rows(rows, array.shape)


def _of_take(is_source: bool, args: Any, kwargs: Any) -> Backward:
    return _take(is_source, *args, **kwargs)


def _take(
    is_source: bool, a: Host, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise"
) -> Backward:
    """Return what makes the gradient of ``take``, which autograd lacks."""
    shape, flat = a.shape, axis is None
    length = a.size if axis is None else shape[axis]
    if mode != "raise":
        indices = np.arange(length).take(indices, mode=mode)
    indices = np.array(indices, dtype=np.intp)
    position = 0 if axis is None else range(len(shape))[axis]
    if is_source and indices.ndim and position == 0 and (not flat or len(shape) == 1):
        return _of_rows(np.where(indices < 0, indices + length, indices), shape)

    def backward(outgrad: Host) -> tuple[Host]:
        lead = tuple(range(indices.ndim))
        moved = np.moveaxis(outgrad, [position + axis for axis in lead], lead)
        rest = () if flat else (*shape[:position], *shape[position + 1 :])
        gradient = np.zeros((length, *rest), outgrad.dtype)
        np.add.at(gradient, indices, moved)
        return (gradient.reshape(shape) if flat else np.moveaxis(gradient, 0, position),)

    return backward


def _of_rows(rows: Host, shape: tuple[int, ...]) -> Backward:
    return lambda outgrad: (IndexedSlices(np.reshape(outgrad, (rows.size, *shape[1:])), rows.reshape(-1)),)


def _rows(key: Any, length: int) -> Host | None:
    """Return the rows that an index reads along the first axis, copied; None if it is no array of integers."""
    if isinstance(key, list | range):
        key = np.array(key)
        key = key if key.size else key.astype(np.intp)
    if type(key) is not np.ndarray or key.ndim == 0 or key.dtype.kind not in "iu":
        return None
    rows: Host = key.astype(np.intp)
    rows[rows < 0] += length
    return rows


anp: Any = autograd.numpy  # whose names are made when it is imported
_READINGS: dict[Any, Callable[[bool, Any, Any], Backward | None]] = {
    ArrayBox.__getitem__: _of_getitem,
    anp.take: _of_take,
}
