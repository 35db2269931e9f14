"""The update of listed rows of a table: how they are put together, and the loops over them."""

import numba
import numpy as np

from rmsprop.arrays.rows import MANY
from rmsprop_numba.kernels import averaged, kernel, parallel_kernel, sweep
from rmsprop_numba.pointers import prefetch, stretch
from rmsprop_numba.scalars import clip, load, scaled, store, times

DIGIT = 11
"""Bits that rows are sorted by at a time, at most: as many counters fit into the fastest cache."""

AHEAD = 2
"""How many rows before its turn a row of a table is fetched."""

LINE = 64
"""Bytes of a line of the cache."""


@kernel
def bit_length(number):
    """Return how many bits a number has."""
    length = 0
    while number >> length:
        length += 1
    return length


@kernel
def by_row(indices, buffers):
    """Write rows and their positions in `indices`, in rising order; return which buffer has them, and bits.

    Both are in one number, the row above so many bits of the position: positions of one row keep their order. Time
    is linear in the number of indices, which must be >= 0, contiguous and of int64.

    Parameters
    ----------
    indices : array of int64, shape (n,)
    buffers : array of int64, shape (2, n)
        Memory to write to. To return an array takes more of the stack, and fails as if Numba were at fault.
    """
    low, high = bit_length(len(indices)), bit_length(indices.max())
    if low + high > 63:
        raise OverflowError("too many indices of too many rows")
    passes = max((high + DIGIT - 1) // DIGIT, 1)
    digit = (high + passes - 1) // passes
    mask = (1 << digit) - 1
    starts = np.empty(1 << digit, np.int64)
    for k in range(passes):
        listed, other = buffers[k & 1], buffers[1 - (k & 1)]
        starts[:] = 0
        for index in indices:
            starts[index >> k * digit & mask] += 1
        total = 0
        for i in range(len(starts)):
            starts[i], total = total, total + starts[i]
        if k == 0:
            for position in range(len(indices)):
                i = indices[position] & mask
                other[starts[i]] = indices[position] << low | position
                starts[i] += 1
        else:
            for number in listed:
                i = number >> low + k * digit & mask
                other[starts[i]] = number
                starts[i] += 1
    return passes & 1, low


@kernel
def sweep_rows(listed, low, values, tables, width, totals, v, rms, momentum, mg, numbers, limit, factor):
    """Update the listed rows of tables, each by the sum of its gradients in their order.

    Parameters
    ----------
    listed, low
        Rows with their positions, and the bits of these, as `by_row` leaves them.
    values : array
        The gradients, contiguous.
    tables : array of int64, shape (4, 2)
        Address of each table, and bytes from one row to the next.
    width : int
        Elements of a row.
    totals : array, shape (n, width)
        Memory to work in; two rows of it are needed.
    v, rms, momentum, mg : array
        Empty ones, which tell the dtypes of the tables; None stands for what isn't used.
    """
    given = values.ctypes.data
    for k in range(len(listed)):
        i = listed[k] >> low
        if k + AHEAD < len(listed):
            fetch_row(tables[0], listed[k + AHEAD] >> low, width * v.itemsize)
            fetch_row(tables[1], listed[k + AHEAD] >> low, width * rms.itemsize)
        if k > 0 and listed[k - 1] >> low == i:
            continue  # it was updated with the first of its listings
        row_v, row_rms = table_row(tables[0], i, width, v), table_row(tables[1], i, width, rms)
        row_momentum, row_mg = table_row(tables[2], i, width, momentum), table_row(tables[3], i, width, mg)
        if k + 1 == len(listed) or listed[k + 1] >> low != i:
            gradient = stretch(given, (listed[k] & (1 << low) - 1) * width, width, v)
            sweep(row_v, gradient, row_rms, row_momentum, row_mg, None, numbers, limit, factor)
        else:
            add_row(totals, listed[k:], low, given, width, v, limit, factor)
            sweep(row_v, totals[0], row_rms, row_momentum, row_mg, None, numbers, None, None)


@kernel
def sum_rows(listed, low, values, rows, totals, limit, factor):
    """Write the rows that are listed, once each, and the sums of their gradients in their order; return how many.

    Parameters are as in `sweep_rows`; `rows` and `totals` have room for as many as are listed.
    """
    width, count, k = totals.shape[1], 0, 0
    sums = np.empty((2, width), totals.dtype)
    while k < len(listed):
        add_row(sums, listed[k:], low, values.ctypes.data, width, values, limit, factor)
        rows[count], totals[count, :] = listed[k] >> low, sums[0]
        count, k = count + 1, next_row(listed, low, k + 1)
    return count


@parallel_kernel
def sweep_rows_parallel(listed, low, values, tables, width, totals, v, rms, momentum, mg, numbers, limit, factor):
    """Do as `sweep_rows`, in several threads, each with two rows of `totals` to work in."""
    tasks = len(totals) // 2
    for task in numba.prange(tasks):
        a = next_row(listed, low, task * len(listed) // tasks)
        b = next_row(listed, low, (task + 1) * len(listed) // tasks)
        sweep_rows(
            listed[a:b], low, values, tables, width, totals[2 * task : 2 * task + 2],
            v, rms, momentum, mg, numbers, limit, factor,
        )  # fmt: skip


@kernel
def next_row(listed, low, k):
    """Return the first position from `k` on where a row begins, or the end."""
    while 0 < k < len(listed) and listed[k] >> low == listed[k - 1] >> low:
        k += 1
    return k


@kernel
def fetch_row(table, i, size):
    """Let a row of so many bytes be fetched into the cache; the processor can't foresee which will be next."""
    fetch(table[0] + i * table[1], size)


@kernel
def fetch(address, size):
    """Let so many bytes be fetched into the cache."""
    for line in range(0, size, LINE):
        prefetch(address + line)


@kernel
def table_row(table, i, width, like):
    """Return a row of a table, given by its address and the bytes between rows; None if `like` is None."""
    return stretch(table[0] + i * table[1], 0, width, like)


@kernel
def add_row(totals, listed, low, given, width, like, limit, factor):
    """Add up the gradients of the first row that is listed in ``totals[0]``: those of `MANY` at a time, in order.

    They lie from the address `given` on. ``totals[1]`` is memory to work in.
    """
    total, part = totals[0], totals[1]
    total[:] = -total.dtype.type(0)  # to which nothing is added as it is, with its sign
    stop, row = 1, listed[0] >> low
    while stop < len(listed) and listed[stop] >> low == row:
        stop += 1
    for start in range(0, stop, MANY):
        into = total if stop <= MANY else part
        into[:] = -total.dtype.type(0)
        for number in listed[start : min(start + MANY, stop)]:
            add(into, stretch(given, (number & (1 << low) - 1) * width, width, like), limit, factor)
        if stop > MANY:
            for j in range(width):
                total[j] += part[j]


@kernel
def add(total, values, limit, factor):
    """Add values, clipped and scaled, to a total."""
    for j in range(values.size):
        gradient = load(values[j])
        if limit is not None:
            gradient = clip(gradient, type(gradient.real)(limit))
        if factor is not None:
            gradient = scaled(gradient, factor)
        total[j] += gradient


@kernel
def decay(averages, rho):
    """Multiply averages, in two axes of any strides, by a number."""
    for i in range(averages.shape[0]):
        for j in range(averages.shape[1]):
            averages[i, j] = times(averages[i, j], type(averages[i, j].real)(rho))


@kernel
def shrink(variable, shrinkage):
    """Let the elements of a variable, in two axes of any strides, shrink by a part of them."""
    for i in range(variable.shape[0]):
        for j in range(variable.shape[1]):
            x = load(variable[i, j])
            variable[i, j] = store(x - times(x, type(x.real)(shrinkage)), variable[i, j])


@kernel
def average(averages, variable, ema, one_minus_ema):
    """Average the elements of a variable, in two axes of any strides."""
    for i in range(variable.shape[0]):
        for j in range(variable.shape[1]):
            averages[i, j] = averaged(averages[i, j], variable[i, j], ema, one_minus_ema)
