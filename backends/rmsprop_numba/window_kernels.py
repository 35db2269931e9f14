"""The update of windows: how their runs are put together, and the loops over them.

A run is a row of a window, contiguous in memory. Rows of the variable are divided into segments, and runs where
these end into pieces. The pieces of one segment are added up in a fixed order, whatever thread does so.
"""

import numba

from rmsprop_numba.kernels import kernel, parallel_kernel, sweep
from rmsprop_numba.pointers import on_stack, stretch
from rmsprop_numba.row_kernels import add, next_row

SEGMENT = 2_048
"""Elements of a segment: few enough for their sums to stay in the fastest cache."""

TASKS = 64
"""Parts that the segments are divided into, for threads to take."""


@kernel
def sweep_windows(
    listed, ordered, low, division, values, columns, places, lead, like,
    v, rms, momentum, mg, numbers, limit, factor,
):  # fmt: skip
    """Update the elements of some windows of a variable, each by the sum of its gradients in their order.

    Parameters
    ----------
    listed, ordered : array of int64, shape (n,)
        Pieces by segments, and by the places of their first elements, with their positions in the order of the
        windows; see `rmsprop_numba.row_kernels.by_row`.
    low : int
        Bits of the positions.
    division : tuple of four int
        Segments of a row, pieces of a run, runs of a window, elements of a run.
    values : array
        The gradients, contiguous.
    columns : array of int64
        Where each window begins in its rows.
    places : array of int64, shape (4, n)
        Address of each table, and bytes from one index of each leading axis to the next.
    lead : array of int64
        The shape of the leading axes.
    like : array
        An empty one, of the dtype of the sums.
    v, rms, momentum, mg : array
        Empty ones, which tell the dtypes of the tables; None stands for what isn't used.
    """
    total, given, end = on_stack(SEGMENT, like), values.ctypes.data, 0
    while end < len(listed):
        begin, end = end, next_row(listed, low, end + 1)
        row = (listed[begin] >> low) // division[0]
        segment = (listed[begin] >> low) - row * division[0]
        start, mask = segment * SEGMENT, (1 << low) - 1
        k = begin
        while k < end:
            a, b, k = joined(ordered, k, end, mask, division, columns, start)
            total[a:b] = -total.dtype.type(0)  # to which nothing is added as it is, with its sign
        for number in listed[begin:end]:
            a, b, first = piece(number & mask, division, columns, start)
            add(total[a:b], stretch(given, first, b - a, v), limit, factor)
        k = begin
        while k < end:
            a, b, k = joined(ordered, k, end, mask, division, columns, start)
            sweep(
                part_of_row(places[0], lead, row, start + a, b - a, v), total[a:b],
                part_of_row(places[1], lead, row, start + a, b - a, rms),
                part_of_row(places[2], lead, row, start + a, b - a, momentum),
                part_of_row(places[3], lead, row, start + a, b - a, mg),
                None, numbers, None, None,
            )  # fmt: skip


@parallel_kernel
def sweep_windows_parallel(
    listed, ordered, low, division, values, columns, places, lead, like,
    v, rms, momentum, mg, numbers, limit, factor,
):  # fmt: skip
    """Do as `sweep_windows`, in several threads."""
    for task in numba.prange(TASKS):
        a = next_row(listed, low, task * len(listed) // TASKS)
        b = next_row(listed, low, (task + 1) * len(listed) // TASKS)
        sweep_windows(
            listed[a:b], ordered[a:b], low, division, values, columns, places, lead, like,
            v, rms, momentum, mg, numbers, limit, factor,
        )  # fmt: skip


@kernel
def piece(position, division, columns, start):
    """Return where a piece begins and ends in the segment that begins at `start`, and its first gradient."""
    run = position // division[1]
    column = columns[run // division[2]]
    a, b = max(column - start, 0), min(column + division[3] - start, SEGMENT)
    return a, b, run * division[3] + start + a - column


@kernel
def joined(ordered, k, end, mask, division, columns, start):
    """Return the first and last bound of pieces without gaps between them, from `k` on, and which comes next."""
    a, b, _ = piece(ordered[k] & mask, division, columns, start)
    k += 1
    while k < end:
        c, d, _ = piece(ordered[k] & mask, division, columns, start)
        if c > b:
            break
        b = max(b, d)
        k += 1
    return a, b, k


@kernel
def part_of_row(place, lead, row, start, size, like):
    """Return elements of a row of a table, given by its address and strides; None if `like` is None."""
    address = place[0]
    for k in range(len(lead) - 1, -1, -1):
        rest = row // lead[k]
        address += (row - rest * lead[k]) * place[1 + k]
        row = rest
    return stretch(address, start, size, like)
