"""Sparse gradients: the update of the rows that are listed."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host
from rmsprop.formula import Hyperparameters, Numbers
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
    numbers: Numbers,
    scaling: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Iterator[Job]:
    """Yield the calls that update the rows of a variable and its slots that a sparse gradient lists.

    With ``hyper.lazy`` off, all other rows decay, those of averages only without momentum. The average of the
    variable, the last of the arrays, is that of all rows. `scaling` is the limit of values and the factor.
    """
    *updated, average = arrays
    yield from of_all(updated, numbers, hyper)
    if hyper.averages_decay:
        numbers = numbers._replace(rho=1.0)  # the listed rows decay with all others
    if gradient.indices.size:
        values = np.ascontiguousarray(layout.encoded(gradient.values, hyper.complex_as_real))
        yield from _updates(tables, updated, values, gradient.indices, numbers, scaling, hyper)
    if average is not None:
        yield from averaging(average, cast("Array", arrays[0]), numbers)


def of_all(arrays: Sequence[Array | None], numbers: Numbers, hyper: Hyperparameters) -> Iterator[Job]:
    """Yield the calls that let all averages decay and all of a variable shrink, as far as they are to."""
    if hyper.averages_decay:
        for each in arrays[1:]:
            if each is not None:
                yield from _decays(each, hyper.rho)
    if hyper.variables_shrink:
        yield from shrinking(cast("Array", arrays[0]), numbers)


def _updates(
    tables: Tables | None,
    arrays: list[Array | None],
    values: Array,
    indices: Array,
    numbers: Numbers,
    scaling: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Iterator[Job]:
    if tables is not None:
        if hyper.variables_shrink:
            numbers = numbers._replace(shrinkage=None)
        yield _sweep(tables, values, indices, (tuple(numbers), *scaling))
        return
    # The rows of an odd layout can't be seen as one axis: copies of them are updated, and put back.
    rows, indices = np.unique(indices, return_inverse=True)
    encoded = [layout.encoded(a, hyper.complex_as_real) for a in arrays]
    copies = [a if a is None else np.ascontiguousarray(a[rows]) for a in encoded]
    for copy in copies[1:] if hyper.averages_decay else ():
        for kernel, arguments in () if copy is None else _decays(copy, hyper.rho):
            kernel(*arguments)
    yield _sweep(cast("Tables", tables_of(copies)), values, indices, (tuple(numbers), *scaling))
    for array, copy in zip(encoded, copies, strict=True):
        if array is not None:
            yield operator.setitem, (array, rows, copy)


def shrinking(variable: Array, numbers: Numbers) -> Iterator[Job]:
    """Yield the calls that let all rows of a variable shrink, by decoupled weight decay."""
    yield from _matrix_jobs(row_kernels.shrink, (variable,), numbers.shrinkage)


def averaging(average: Array, variable: Array, numbers: Numbers) -> Iterator[Job]:
    """Yield the calls that average all rows of a variable."""
    yield from _matrix_jobs(row_kernels.average, (average, variable), numbers.ema, numbers.one_minus_ema)


def _decays(average: Array, rho: float) -> Iterator[Job]:
    """Yield the calls that let an average decay."""
    yield from _matrix_jobs(row_kernels.decay, (average,), rho)


def _matrix_jobs(kernel: Any, arrays: tuple[Array, ...], *numbers: float | None) -> Iterator[Job]:
    """Yield the calls of a kernel of arrays with two axes."""
    encoded = [layout.encoded(array, False) for array in arrays]
    for views in layout.matrices(encoded) if arrays[0].size else ():
        arguments = (*[view if view.ndim == 2 else view[None] for view in views], *numbers)
        compile_for(kernel, arguments)
        yield kernel, arguments


def _sweep(tables: Tables, values: Array, indices: Array, scalars: tuple[Any, ...]) -> Job:
    """Return the call of the kernel."""
    buffers, width = np.empty((2, len(indices)), np.int64), values.size // len(values)
    which, bits = row_kernels.by_row(np.ascontiguousarray(indices, np.int64), buffers)
    totals = np.empty((2 * TASKS, width), tables.computing)
    kernels = row_kernels.sweep_rows, row_kernels.sweep_rows_parallel
    arguments = values.reshape(-1), tables.places, width, totals, *tables.likes, *scalars
    return job(*kernels, values.size, buffers[which], bits, *arguments)
