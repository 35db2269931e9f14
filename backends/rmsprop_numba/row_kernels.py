"""The update of listed rows of a table: how they are put together, and the loops over them."""

import numba
import numpy as np

from rmsprop_numba.kernels import kernel, parallel_kernel, sweep
from rmsprop_numba.pointers import stretch
from rmsprop_numba.scalars import clip, load, times

BITS = 11
"""Binary digits that rows are sorted by at a time: as many counters fit into the fastest cache."""


@kernel
def grouped(indices):
    """Return the distinct rows in rising order, positions in `indices` by row, and where each row starts there.

    The last start is the end. Positions of one row keep their order, so that their sum has one result. Time is
    linear in the number of indices, which must be >= 0, contiguous and of int64.
    """
    order = np.arange(len(indices))
    if not is_rising(indices):
        indices, order = sorted_by_digits(indices, order)
    starts, rows = np.empty(len(indices) + 1, np.int64), np.empty(len(indices), np.int64)
    count = 0
    for position in range(len(indices)):
        if position == 0 or indices[position] != indices[position - 1]:
            starts[count], rows[count] = position, indices[position]
            count += 1
    starts[count] = len(indices)
    return rows[:count], order, starts[: count + 1]


@kernel
def is_rising(indices):
    """Tell whether no index is lower than the one before."""
    for position in range(1, len(indices)):  # noqa: SIM110 (Numba has no generators here)
        if indices[position] < indices[position - 1]:
            return False
    return True


@kernel
def sorted_by_digits(keys, order):
    """Return numbers >= 0 in rising order, and what stands at their positions in `order`; a stable radix sort."""
    highest = keys.max()
    counts = np.empty((1 << BITS) + 1, np.int64)
    from_keys, from_order = keys.copy(), order
    to_keys, to_order = np.empty_like(keys), np.empty_like(order)
    shift = 0
    while highest >> shift > 0:
        counts[:] = 0
        for key in from_keys:
            counts[((key >> shift) & ((1 << BITS) - 1)) + 1] += 1
        for digit in range(1, len(counts)):
            counts[digit] += counts[digit - 1]
        for position in range(len(from_keys)):
            key = from_keys[position]
            digit = (key >> shift) & ((1 << BITS) - 1)
            to_keys[counts[digit]], to_order[counts[digit]] = key, from_order[position]
            counts[digit] += 1
        from_keys, to_keys, from_order, to_order = to_keys, from_keys, to_order, from_order
        shift += BITS
    return from_keys, from_order


@kernel
def sweep_rows(
    rows, order, starts, values, tables, width, totals, v, r, mom, mg,
    lr, rho, new, momentum, inner, outer, limit, factor,
):  # fmt: skip
    """Update the listed rows of tables, each by the sum of its gradients in their order.

    Parameters
    ----------
    rows, order, starts : array of int64
        What `grouped` returns.
    values : array
        The gradients, contiguous.
    tables : array of int64, shape (4, 2)
        Address of each table, and bytes from one row to the next.
    width : int
        Elements of a row.
    totals : array, shape (n, width)
        Memory to work in; a row of it is needed.
    v, r, mom, mg : array
        Empty ones, which tell the dtypes of the tables; None stands for what isn't used.
    """
    total, given = totals[0], values.ctypes.data
    for k in range(len(rows)):
        i, first, last = rows[k], starts[k], starts[k + 1]
        variable, rms = table_row(tables[0], i, width, v), table_row(tables[1], i, width, r)
        velocity, mean = table_row(tables[2], i, width, mom), table_row(tables[3], i, width, mg)
        if last == first + 1:
            sweep(
                variable, stretch(given, order[first] * width, width, v), rms, velocity, mean,
                lr, rho, new, momentum, inner, outer, limit, factor,
            )  # fmt: skip
        else:
            total[:] = 0
            for position in range(first, last):
                add(total, stretch(given, order[position] * width, width, v), limit, factor)
            sweep(variable, total, rms, velocity, mean, lr, rho, new, momentum, inner, outer, None, None)


@parallel_kernel
def sweep_rows_parallel(
    rows, order, starts, values, tables, width, totals, v, r, mom, mg,
    lr, rho, new, momentum, inner, outer, limit, factor,
):  # fmt: skip
    """Do as `sweep_rows`, in several threads, each with a row of `totals` to work in."""
    for task in numba.prange(len(totals)):
        a, b = task * len(rows) // len(totals), (task + 1) * len(rows) // len(totals)
        sweep_rows(
            rows[a:b], order, starts[a : b + 1], values, tables, width, totals[task : task + 1],
            v, r, mom, mg, lr, rho, new, momentum, inner, outer, limit, factor,
        )  # fmt: skip


@kernel
def table_row(table, i, width, like):
    """Return a row of a table, given by its address and the bytes between rows; None if `like` is None."""
    return stretch(table[0] + i * table[1], 0, width, like)


@kernel
def add(total, values, limit, factor):
    """Add values, clipped and scaled, to a total."""
    for j in range(values.size):
        gradient = load(values[j])
        if limit is not None:
            gradient = clip(gradient, type(gradient.real)(limit))
        if factor is not None:
            gradient = times(gradient, type(gradient.real)(factor))
        total[j] += gradient
