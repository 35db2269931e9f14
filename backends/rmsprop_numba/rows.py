"""Sparse gradients: the update of the rows that are listed."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rmsprop.backends import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices, group_by_row
from rmsprop_numba import kernels, layout
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
    rows, order, starts = group_by_row(gradient.indices)
    arrays = [layout.encoded(a, hyper.complex_as_real) for a in tables]
    values = np.ascontiguousarray(layout.encoded(gradient.values, hyper.complex_as_real))
    matrices = [a if a is None else layout.table(a) for a in arrays]
    if all(m is not None or a is None for m, a in zip(matrices, arrays, strict=True)):
        yield _sweep(matrices, values, (order, starts, rows), scalars)
        return
    # The rows of an odd layout can't be seen as one axis: copies of them are updated, and put back.
    copies = [a if a is None else np.ascontiguousarray(a[rows]) for a in arrays]
    for copy in copies[1:] if decays else ():
        if copy is not None:
            copy *= copy.dtype.type(hyper.rho)
    matrices = [a if a is None else layout.table(a) for a in copies]
    yield _sweep(matrices, values, (order, starts, np.arange(len(rows))), scalars)
    for array, copy in zip(arrays, copies, strict=True):
        if array is not None:
            yield operator.setitem, (array, rows, copy)


def _sweep(matrices: list[Any], values: Array, groups: tuple[Array, ...], scalars: tuple[Any, ...]) -> Job:
    """Return the call of the kernel."""
    variable, rms, _, _ = matrices
    gradients = values.reshape(len(values), -1), *groups
    computing = rms.dtype if variable.dtype.kind in "ui" else variable.dtype
    totals = np.empty((TASKS, gradients[0].shape[1]), computing)
    arguments = kernels.sweep_rows, kernels.sweep_rows_parallel, values.size, tuple(matrices), gradients
    return run, (*arguments, totals, *scalars)
