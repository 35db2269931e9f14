"""Sparse gradients: the update of the rows that are listed."""

from typing import Any

import numpy as np

from rmsprop.backends import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices, group_by_row
from rmsprop_numba import kernels, layout
from rmsprop_numba.threads import run

Array = np.ndarray[Any, Any]

TASKS = 16
"""Parts that the rows are divided into, for threads to take."""


def update_rows(
    tables: tuple[Array | None, ...],
    gradient: IndexedSlices,
    scalars: tuple[Any, ...],
    hyper: Hyperparameters,
) -> None:
    """Update the rows of a variable and its slots that a sparse gradient lists.

    With ``hyper.lazy`` off and without momentum, the averages of all other rows decay.
    """
    if not hyper.lazy and hyper.momentum is None:
        _decay(tables, hyper.rho)
        scalars = (scalars[0], 1.0, *scalars[2:])  # the listed rows have decayed, too
    if gradient.indices.size == 0:
        return
    rows, order, starts = group_by_row(gradient.indices)
    arrays = [layout.encoded(a, hyper.complex_as_real) for a in tables]
    values = np.ascontiguousarray(layout.encoded(gradient.values, hyper.complex_as_real))
    matrices = [a if a is None else layout.table(a) for a in arrays]
    if any(m is None and a is not None for m, a in zip(matrices, arrays, strict=True)):
        _update_gathered(arrays, values, (order, starts, rows), scalars)
    else:
        _run(matrices, values, (order, starts, rows), scalars)


def _decay(tables: tuple[Array | None, ...], rho: float) -> None:
    _, rms, _, mg = tables
    for average in (rms, mg):
        if average is not None:
            np.multiply(average, average.dtype.type(rho), out=average)


def _update_gathered(arrays: list[Any], values: Array, groups: tuple[Array, ...], scalars: Any) -> None:
    """Update copies of the rows, for arrays whose rows can't be seen as one axis."""
    order, starts, rows = groups
    copies = [a if a is None else np.ascontiguousarray(a[rows]) for a in arrays]
    matrices = [a if a is None else layout.table(a) for a in copies]
    _run(matrices, values, (order, starts, np.arange(len(rows))), scalars)
    for array, copy in zip(arrays, copies, strict=True):
        if array is not None:
            array[rows] = copy


def _run(matrices: list[Any], values: Array, groups: tuple[Array, ...], scalars: tuple[Any, ...]) -> None:
    variable, rms, _, _ = matrices
    table = values.reshape(len(values), -1)
    computing = rms.dtype if variable.dtype.kind in "ui" else variable.dtype
    totals = np.empty((TASKS, table.shape[1]), computing)
    arguments = tuple(matrices), (table, *groups)
    serial = kernels.sweep_rows, (*arguments, totals[0], *scalars)
    run_tasks = kernels.sweep_rows_parallel, (*arguments, totals, *scalars)
    run(lambda: serial[0](*serial[1]), lambda: run_tasks[0](*run_tasks[1]), values.size)
