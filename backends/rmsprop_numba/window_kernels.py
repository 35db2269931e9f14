"""The update of windows: how their runs are put together, and the loops over them.

A run is a row of a window, contiguous in memory. Rows of the variable are divided into segments, and runs where
these end into pieces. Those of one segment are added up in the order of their windows, whatever thread does so.
"""

import numba

from rmsprop_numba.kernels import inlined_kernel, kernel, parallel_kernel, sweep
from rmsprop_numba.pointers import on_stack, stretch
from rmsprop_numba.row_kernels import add, fetch, next_row

SEGMENT = 2_048
"""Elements of a segment: few enough for their sums to stay in the fastest cache."""

AHEAD = 4
"""How many pieces before its turn the gradients of one are fetched."""

TASKS = 64
"""Parts that the segments are divided into, for threads to take."""


@kernel
def sweep_windows(
    listed, ordered, low, division, columns, rising, values, places, lead, like,
    v, rms, momentum, mg, numbers, limit, factor,
):  # fmt: skip
    """Update the elements of some windows of a variable, each by the sum of its gradients in their order.

    Parameters
    ----------
    listed, ordered : array of int64, shape (n,)
        Pieces by segments, with their positions among all pieces of all windows: in the order of these, and in
        that of their columns. See `rmsprop_numba.row_kernels.by_row`.
    low : int
        Bits of the positions.
    division : tuple of four int
        Segments of a row, pieces of a run, runs of a window, elements of a run.
    columns, rising : array of int64
        Where each window begins in its rows, in both orders.
    values : array
        The gradients, contiguous.
    places : array of int64, shape (4, n)
        Address of each table, and bytes from one index of each leading axis to the next.
    lead : array of int64
        The shape of the leading axes.
    like : array
        An empty one, of the dtype of the sums.
    v, rms, momentum, mg : array
        Empty ones, which tell the dtypes of the tables; None stands for what isn't used.
    """
    total, bounds = on_stack(SEGMENT, like), on_stack(SEGMENT, listed)  # of stretches with gaps between them
    given, mask, last = values.ctypes.data, (1 << low) - 1, len(listed) - 1
    each = 1.0 / division[1], 1.0 / division[2]
    end = 0
    while end < len(listed):
        begin, end = end, next_row(listed, low, end + 1)
        row = (listed[begin] >> low) // division[0]
        start = ((listed[begin] >> low) - row * division[0]) * SEGMENT
        count = covered(ordered[begin:end], mask, division, each, rising, start, bounds)
        for i in range(0, count, 2):
            for j in range(bounds[i], bounds[i + 1]):
                total[j] = -total.dtype.type(0)  # to which nothing is added as it is, with its sign
        for k in range(begin, end):
            if division[3] <= SEGMENT:
                ahead = quotient(listed[min(k + AHEAD, last)] & mask, each[0]) * division[3]
                fetch(given + ahead * v.itemsize, division[3] * v.itemsize)
            a, b, first = piece(listed[k] & mask, division, each, columns, start)
            add(total[a:b], stretch(given, first, b - a, v), limit, factor)
        row_v, row_rms = address_of(places[0], lead, row), address_of(places[1], lead, row)
        row_momentum, row_mg = address_of(places[2], lead, row), address_of(places[3], lead, row)
        for i in range(0, count, 2):
            a, size = bounds[i], bounds[i + 1] - bounds[i]
            sweep(
                stretch(row_v, start + a, size, v), total[a : a + size], stretch(row_rms, start + a, size, rms),
                stretch(row_momentum, start + a, size, momentum), stretch(row_mg, start + a, size, mg),
                None, numbers, None, None,
            )  # fmt: skip


@parallel_kernel
def sweep_windows_parallel(
    listed, ordered, low, division, columns, rising, values, places, lead, like,
    v, rms, momentum, mg, numbers, limit, factor,
):  # fmt: skip
    """Do as `sweep_windows`, in several threads."""
    for task in numba.prange(TASKS):
        a = next_row(listed, low, task * len(listed) // TASKS)
        b = next_row(listed, low, (task + 1) * len(listed) // TASKS)
        sweep_windows(
            listed[a:b], ordered[a:b], low, division, columns, rising, values, places, lead, like,
            v, rms, momentum, mg, numbers, limit, factor,
        )  # fmt: skip


@kernel
def covered(ordered, mask, division, each, columns, start, bounds):
    """Write the bounds of all stretches that pieces in rising order cover; return how many bounds there are."""
    count = 0
    for number in ordered:
        a, b, _ = piece(number & mask, division, each, columns, start)
        if count > 0 and a <= bounds[count - 1]:
            bounds[count - 1] = max(bounds[count - 1], b)
        else:
            bounds[count], bounds[count + 1] = a, b
            count += 2
    return count


@inlined_kernel
def piece(position, division, each, columns, start):
    """Return where a piece begins and ends in the segment that begins at `start`, and its first gradient."""
    run = quotient(position, each[0])
    column = columns[quotient(run, each[1])]
    a, b = max(column - start, 0), min(column + division[3] - start, SEGMENT)
    return a, b, run * division[3] + start + a - column


@inlined_kernel
def quotient(number, inverse):
    """Return a number divided by a whole one, of which the inverse is given; exact up to 2**50.

    A division of integers would take as long as the update of ten elements.
    """
    return int((number + 0.5) * inverse)


@kernel
def address_of(place, lead, row):
    """Return the address of a row of a table, given by its own address and its strides."""
    address = place[0]
    for k in range(len(lead) - 1, -1, -1):
        rest = row // lead[k]
        address += (row - rest * lead[k]) * place[1 + k]
        row = rest
    return address
