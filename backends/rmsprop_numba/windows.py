"""Windows: the update of the patches of a variable that a gradient consists of."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.arrays.windows import Windows, firsts, offsets
from rmsprop.formula import Hyperparameters, Numbers
from rmsprop_numba import layout, row_kernels, window_kernels
from rmsprop_numba.rows import averaging, of_all
from rmsprop_numba.threads import Job, job
from rmsprop_numba.variables import address
from rmsprop_numba.window_kernels import SEGMENT

Array = Host


class Axes(NamedTuple):
    """A variable and its windows; the last axis is that of runs, which are contiguous."""

    shape: tuple[int, ...]
    patch: tuple[int, ...]
    starts: Array


def jobs(
    arrays: Sequence[Array | None],
    gradient: Windows,
    numbers: Numbers,
    scaling: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Iterator[Job]:
    """Yield the calls that update the windows of a variable and its slots that a gradient lists.

    All other elements change as those of other rows by a sparse gradient, see `rmsprop_numba.rows.jobs`.
    """
    *updated, average = arrays
    yield from of_all(updated, numbers, hyper)
    numbers = numbers._replace(rho=1.0 if hyper.averages_decay else numbers.rho)
    numbers = numbers._replace(shrinkage=None if hyper.variables_shrink else numbers.shrinkage)
    if gradient.values.size:
        yield from _updates(updated, gradient, (tuple(numbers), *scaling), hyper)
    if average is not None:
        yield from averaging(average, cast("Array", arrays[0]), numbers)


def _updates(
    arrays: Sequence[Array | None], gradient: Windows, scalars: tuple[Any, ...], hyper: Hyperparameters
) -> Iterator[Job]:
    """Yield the calls that update windows; tables without contiguous runs are copied there, and put back."""
    variable = cast("Array", arrays[0])
    order = sorted(range(variable.ndim), key=lambda k: (variable.shape[k] > 1, -abs(variable.strides[k])))
    tables = [a if a is None else a.transpose(order) for a in arrays]
    values = gradient.values.transpose(0, *[1 + k for k in order])
    starts, patch = gradient.starts[:, order], values.shape[1:]
    direct = [a if a is None or _has_runs(a) else np.empty(a.shape, a.dtype) for a in tables]
    copies = [(copy, a) for copy, a in zip(direct, tables, strict=True) if copy is not a]
    windows = [tuple(map(slice, start, np.add(start, patch).tolist())) for start in starts.tolist() if copies]
    for copy, table in copies:
        yield _copy, (copy, table, windows)
    yield _sweep(direct, values, starts, scalars, hyper)
    for copy, table in copies:
        yield _copy, (table, copy, windows)


def _copy(target: Array, source: Array, windows: Sequence[tuple[slice, ...]]) -> None:
    for window in windows:
        target[window] = source[window]


def _has_runs(array: Array) -> bool:
    """Tell whether each row of an array lies in memory without gaps, and aligned."""
    return array.flags.aligned and (array.shape[-1] == 1 or array.strides[-1] == array.itemsize)


def _sweep(
    tables: Sequence[Any], values: Array, starts: Array, scalars: tuple[Any, ...], hyper: Hyperparameters
) -> Job:
    """Return the call of the kernel."""
    parts = 2 if hyper.complex_as_real and values.dtype.kind == "c" else 1
    axes = _joined(Axes(tables[0].shape, values.shape[1:], starts), [a for a in tables if a is not None])
    count, columns, run = len(axes.shape), axes.starts[:, -1] * parts, axes.patch[-1] * parts
    lead = axes.shape[:-1]
    segments = -(-axes.shape[-1] * parts // SEGMENT)
    first, last = columns // SEGMENT, (columns + run - 1) // SEGMENT
    pieces = int((last - first).max()) + 1
    rows = firsts(axes.starts[:, :-1], lead) if lead else np.zeros(len(starts), np.int64)
    runs = rows[:, None] + offsets(axes.patch[:-1], lead)
    keys = (runs * segments + first[:, None])[..., None] + np.arange(pieces)
    within = np.where(np.arange(pieces) == 0, (columns - first * SEGMENT)[:, None], 0)
    is_there = first[:, None] + np.arange(pieces) <= last[:, None]
    nowhere = segments * int(np.prod(lead, dtype=np.int64))  # comes last
    keys = np.where(is_there[:, None], keys, nowhere)
    places = keys * SEGMENT + within[:, None]
    listed, low = _by_number(keys.reshape(-1))
    ordered, _ = _by_number(places.reshape(-1))
    n = int(is_there.sum()) * runs.shape[1]
    division = segments, pieces, runs.shape[1], run
    likes = [a if a is None else np.empty(0, layout.encoded(a[:0], hyper.complex_as_real).dtype) for a in tables]
    where = [[0] * count if a is None else [address(a), *a.strides[: count - 1]] for a in tables]
    v, rms = cast("list[Array]", likes[:2])
    like = rms if v.dtype.kind in "ui" else v
    given = np.require(values, requirements=("C", "A")).reshape(-1)
    given = layout.encoded(given, hyper.complex_as_real).reshape(-1)
    arguments = (
        listed[:n], ordered[:n], low, division, given, np.ascontiguousarray(columns), np.array(where, np.int64),
        np.array(lead, np.int64), like, *likes, *scalars,
    )  # fmt: skip
    return job(window_kernels.sweep_windows, window_kernels.sweep_windows_parallel, given.size, *arguments)


def _by_number(numbers: Array) -> tuple[Array, int]:
    """Return numbers with their positions in rising order, and the bits of these."""
    buffers = np.empty((2, len(numbers)), np.int64)
    which, low = row_kernels.by_row(numbers, buffers)
    return buffers[which], low


def _joined(axes: Axes, tables: Sequence[Array]) -> Axes:
    """Return the axes with those merged into the last one that windows cover, if tables have no gaps there."""
    shape, patch, starts = axes
    while (
        len(shape) > 1
        and patch[-1] == shape[-1]
        and all([a.strides[len(shape) - 2] == shape[-1] * a.itemsize for a in tables])
    ):
        *lead, height, width = shape
        starts = np.concatenate([starts[:, :-2], starts[:, -2:-1] * width], axis=1)
        patch = (*patch[:-2], patch[-2] * width)
        shape = (*lead, height * width)
    return Axes(shape, patch, starts)
