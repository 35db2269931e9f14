"""Sparse gradients: the update of the rows that are listed."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rmsprop.backends import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop_numba import layout, row_kernels
from rmsprop_numba.headers import address
from rmsprop_numba.threads import run

Array = np.ndarray[Any, Any]
Job = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""

TASKS = 16
"""Parts that the rows are divided into, for threads to take."""


def jobs(
    tables: tuple[Array | None, ...],
    gradient: IndexedSlices,
    scalars: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Iterator[Job]:
    """Yield the calls that update the rows of a variable and its slots that a sparse gradient lists.

    With ``hyper.lazy`` off and without momentum, the averages of all other rows decay.
    """
    decays = not hyper.lazy and hyper.momentum is None
    if decays:
        scalars = (scalars[0], 1.0, *scalars[2:])  # the listed rows decay with all others
        for average in tables[1:]:
            if average is not None:
                yield np.multiply, (average, average.dtype.type(hyper.rho), average)
    if gradient.indices.size == 0:
        return
    rows, order, starts = row_kernels.grouped(np.ascontiguousarray(gradient.indices, np.int64))
    arrays = [layout.encoded(a, hyper.complex_as_real) for a in tables]
    values = np.ascontiguousarray(layout.encoded(gradient.values, hyper.complex_as_real))
    if all([a is None or layout.has_rows(a) for a in arrays]):
        yield _sweep(arrays, values, (rows, order, starts), scalars)
        return
    # The rows of an odd layout can't be seen as one axis: copies of them are updated, and put back.
    copies = [a if a is None else np.ascontiguousarray(a[rows]) for a in arrays]
    for copy in copies[1:] if decays else ():
        if copy is not None:
            copy *= copy.dtype.type(hyper.rho)
    yield _sweep(copies, values, (np.arange(len(rows)), order, starts), scalars)
    for array, copy in zip(arrays, copies, strict=True):
        if array is not None:
            yield operator.setitem, (array, rows, copy)


def _sweep(arrays: list[Any], values: Array, groups: tuple[Array, ...], scalars: tuple[Any, ...]) -> Job:
    """Return the call of the kernel."""
    variable, rms, _, _ = arrays
    width = values.size // len(values)
    computing = rms.dtype if variable.dtype.kind in "ui" else variable.dtype
    totals = np.empty((TASKS, width), computing)
    tables = np.array([(0, 0) if a is None else (address(a), a.strides[0]) for a in arrays], np.int64)
    likes = [a if a is None else np.empty(0, a.dtype) for a in arrays]
    kernels = row_kernels.sweep_rows, row_kernels.sweep_rows_parallel
    return run, (*kernels, values.size, *groups, values, tables, width, totals, *likes, *scalars)
