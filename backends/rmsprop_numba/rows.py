"""Sparse gradients: the update of the rows that are listed."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host
from rmsprop.formula import Hyperparameters
from rmsprop_numba import layout, row_kernels
from rmsprop_numba.compilation import compile_for
from rmsprop_numba.threads import Job, job
from rmsprop_numba.variables import address

Array = Host

TASKS = 64
"""Parts that the rows are divided into, for threads to take."""


class Tables(NamedTuple):
    """A variable and its slots, as the kernels for rows take them; see `rmsprop_numba.row_kernels`."""

    places: Array
    """Address of each array, and bytes from one row to the next."""
    likes: tuple[Any, ...]
    """Empty arrays of their dtypes."""
    computing: np.dtype[Any]
    """Dtype of sums of gradients."""


def tables_of(arrays: Sequence[Any]) -> Tables | None:
    """Return arrays as tables, unless there are no rows or they do not lie in memory in one piece each."""
    variable, rms = arrays[:2]
    if not all([a is None or layout.has_rows(a) for a in arrays]):
        return None
    places = [(0, 0) if a is None else (address(a), a.strides[0]) for a in arrays]
    likes = tuple([a if a is None else np.empty(0, a.dtype) for a in arrays])
    computing = rms.dtype if variable.dtype.kind in "ui" else variable.dtype
    return Tables(np.array(places, np.int64), likes, computing)


def jobs(
    tables: Tables | None,
    arrays: tuple[Array | None, ...],
    gradient: IndexedSlices,
    scalars: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Iterator[Job]:
    """Yield the calls that update the rows of a variable and its slots that a sparse gradient lists.

    With ``hyper.lazy`` off and without momentum, the averages of all other rows decay.
    """
    decays = not hyper.lazy and hyper.momentum is None
    if decays:
        scalars = (tuple(hyper.numbers._replace(rho=1.0)), *scalars[1:])  # the listed rows decay with all others
        for average in arrays[1:]:
            if average is not None:
                yield from _decays(average, hyper.rho)
    if gradient.indices.size == 0:
        return
    values = np.ascontiguousarray(layout.encoded(gradient.values, hyper.complex_as_real))
    if tables is not None:
        yield _sweep(tables, values, gradient.indices, scalars)
        return
    # The rows of an odd layout can't be seen as one axis: copies of them are updated, and put back.
    rows, indices = np.unique(gradient.indices, return_inverse=True)
    encoded = [layout.encoded(a, hyper.complex_as_real) for a in arrays]
    copies = [a if a is None else np.ascontiguousarray(a[rows]) for a in encoded]
    for copy in copies[1:] if decays else ():
        for kernel, arguments in () if copy is None else _decays(copy, hyper.rho):
            kernel(*arguments)
    yield _sweep(cast("Tables", tables_of(copies)), values, indices, scalars)
    for array, copy in zip(encoded, copies, strict=True):
        if array is not None:
            yield operator.setitem, (array, rows, copy)


def _decays(average: Array, rho: float) -> Iterator[Job]:
    """Yield the calls that let an average decay."""
    for (view,) in layout.matrices([average]) if average.size else ():
        arguments = (view if view.ndim == 2 else view[None], rho)
        compile_for(row_kernels.decay, arguments)
        yield row_kernels.decay, arguments


def _sweep(tables: Tables, values: Array, indices: Array, scalars: tuple[Any, ...]) -> Job:
    """Return the call of the kernel."""
    buffers, width = np.empty((2, len(indices)), np.int64), values.size // len(values)
    which, bits = row_kernels.by_row(np.ascontiguousarray(indices, np.int64), buffers)
    totals = np.empty((TASKS, width), tables.computing)
    kernels = row_kernels.sweep_rows, row_kernels.sweep_rows_parallel
    arguments = values.reshape(-1), tables.places, width, totals, *tables.likes, *scalars
    return job(*kernels, values.size, buffers[which], bits, *arguments)
