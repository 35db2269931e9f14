"""Windows: the update of the patches of a variable that a gradient consists of."""

import math
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


class Pieces(NamedTuple):
    """Pieces of the runs of windows, as the kernels take them; see `rmsprop_numba.window_kernels`."""

    listed: Array
    ordered: Array
    low: int
    division: tuple[int, int, int, int]
    columns: Array
    rising: Array


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
    if hyper.averages_decay:
        numbers = numbers._replace(rho=1.0)  # what windows cover decays with all else
    if hyper.variables_shrink:
        numbers = numbers._replace(shrinkage=None)
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
    listed = starts if copies else starts[:0]
    windows = [tuple(map(slice, start, np.add(start, patch).tolist())) for start in listed.tolist()]
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
    axes = _joined(Axes(tables[0].shape, values.shape[1:], starts), [a for a in tables if a is not None])
    pieces = _pieces(axes, 2 if hyper.complex_as_real and values.dtype.kind == "c" else 1)
    lead = axes.shape[:-1]
    places = [[0] * len(axes.shape) if a is None else [address(a), *a.strides[: len(lead)]] for a in tables]
    likes = [a if a is None else np.empty(0, layout.encoded(a[:0], hyper.complex_as_real).dtype) for a in tables]
    contiguous = np.require(values, requirements=("C", "A")).reshape(-1)
    given = layout.encoded(contiguous, hyper.complex_as_real).reshape(-1)
    computing = likes[1] if given.dtype.kind in "ui" else likes[0]
    where = np.array(places, np.int64), np.array(lead, np.int64)
    kernels = window_kernels.sweep_windows, window_kernels.sweep_windows_parallel
    return job(*kernels, given.size, *pieces, given, *where, computing, *likes, *scalars)


def _joined(axes: Axes, tables: Sequence[Array]) -> Axes:
    """Return the axes with those merged into the last one that windows cover, if tables have no gaps there."""
    shape, patch, starts = axes
    while len(shape) > 1 and patch[-1] == shape[-1]:
        *lead, height, width = shape
        if any([a.strides[len(lead)] != width * a.itemsize for a in tables]):
            break
        starts = np.concatenate([starts[:, : len(lead)], starts[:, len(lead) : -1] * width], axis=1)
        shape, patch = (*lead, height * width), (*patch[:-2], patch[-2] * width)
    return Axes(shape, patch, starts)


def _pieces(axes: Axes, parts: int) -> Pieces:
    """Return the pieces of the runs of windows, of which each element has so many parts."""
    *lead, width = axes.shape
    columns, run = np.ascontiguousarray(axes.starts[:, -1] * parts), axes.patch[-1] * parts
    segments, first, last = -(-width * parts // SEGMENT), columns // SEGMENT, (columns + run - 1) // SEGMENT
    rows = firsts(axes.starts, lead) if lead else np.zeros(len(columns), np.int64)
    keys = (rows * segments + first)[:, None, None] + (offsets(axes.patch[:-1], lead) * segments)[:, None]
    most, count = int((last - first).max()) + 1, keys.size
    if most > 1:
        is_there = np.arange(most) <= (last - first)[:, None]
        keys = np.where(is_there[:, None], keys + np.arange(most), math.prod(lead) * segments)  # the end
        count = int(is_there.sum()) * keys.shape[1]
    order = np.argsort(columns, kind="stable")
    listed, low = _by_segment(keys)
    ordered, _ = _by_segment(keys[order])
    division = segments, most, keys.shape[1], run
    return Pieces(listed[:count], ordered[:count], low, division, columns, columns[order])


def _by_segment(keys: Array) -> tuple[Array, int]:
    """Return segments with the positions of their pieces in rising order, and the bits of these."""
    buffers = np.empty((2, keys.size), np.int64)
    which, low = row_kernels.by_row(keys.reshape(-1), buffers)
    return buffers[which], low
