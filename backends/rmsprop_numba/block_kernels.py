"""The update of variables whose slots are codes, block by block, with the numbers of a block in the fastest cache.

A slot is given by its codes and their scales (see `rmsprop_numba.codes`), but the average of the variable by its
numbers: None for what there is not. Real and imaginary part of complex numbers have codes next to each other.
Blocks never cross the ends of rows: each row of `row` elements has blocks of `length`, of which the last may be
shorter.
`blocks` lists those to update, in the order of their elements in `v` and `g`; None stands for all.
"""

import numba
import numpy as np

from rmsprop.variables.compact import COUNT, LENGTH
from rmsprop_numba.codes import NEAREST, bits_of, decoded, encoded, scale_of
from rmsprop_numba.kernels import inlined_kernel, kernel, parallel_kernel, stepped, sweep
from rmsprop_numba.optional import item, numbers_in, reals_of, row_for, view
from rmsprop_numba.pointers import on_stack
from rmsprop_numba.scalars import load, square, store

WORK = COUNT * LENGTH
"""Reals of the slots of one block."""

TASK = 16_384
"""Elements that one thread takes at a time, at least."""


@inlined_kernel
def bounds(k, per_row, row, length):
    """Return the first element of a block, and the one after its last; the fewer divisions the better."""
    which = k // per_row
    place = (k - which * per_row) * length
    return which * row + place, which * row + min(place + length, row)


# Loops that are to run in vector registers stand in functions that are called directly, not by way of another one.


@inlined_kernel
def read(codes, scales, k, out):
    """Write the numbers of a block."""
    scale = item(scales, k)
    for j in range(out.size):
        out[j] = decoded(codes[j], scale)


@inlined_kernel
def write(x, codes, scales, k, dither, stride):
    """Write the codes of the numbers of a block, given the dither of the first."""
    for _ in range(2):  # with the scale that it had, which mostly fits, or else with another
        scale, largest, each = item(scales, k), bits_of(x.dtype.type(0)), dither
        for j in range(x.size):
            largest = max(largest, bits_of(abs(x[j])))
            codes[j] = encoded(x[j], scale, each, codes[j])
            each = np.uint32(each + stride)
        if fits(x, largest, scales, k):
            break


@inlined_kernel
def fits(x, largest, scales, k):
    """Return whether a block has the scale that the largest of its numbers calls for; else give it that."""
    if scales is None:
        return True
    fitting = scale_of(x, largest)
    if fitting == scales[k]:
        return True
    scales[k] = fitting
    return False


@inlined_kernel
def lift(rms, mg, least):
    """Let the mean of squares exceed the square of the mean by as much as rounding may hide."""
    for j in range(rms.size):
        floor = square(mg[j]) * rms.dtype.type(least)
        rms[j] = floor if rms[j] < floor else rms[j]  # NaN stays NaN


@inlined_kernel
def sweep_codes(v, g, codes, scale, work, dither, stride, numbers, limit, factor):
    """Update a block whose only slot is ``rms``, from codes to codes in one loop; return the bits of the largest.

    `work` receives the numbers. With more arrays, compilers would give up vector registers.
    """
    largest = bits_of(work.dtype.type(0))
    for i in range(v.size):
        rms = work.dtype.type(decoded(codes[i], scale))
        change, new_rms, _, _ = stepped(v[i], g[i], rms, None, None, numbers, limit, factor)
        v[i], work[i] = store(load(v[i]) - change, v[i]), new_rms  # read late, or else registers get scarce
        largest = max(largest, bits_of(new_rms))
        codes[i] = encoded(new_rms, scale, dither, codes[i])
        dither = np.uint32(dither + stride)
    return largest


@kernel
def sweep_task(
    first, last, blocks, row, length, dithers, stride, least, like, v, g,
    rms, rms_scales, momentum, momentum_scales, mg, mg_scales, average, numbers, limit, factor,
):  # fmt: skip
    """Update the blocks from `first` to `last`."""
    work, reals = on_stack(WORK, like), reals_of(v)  # memory of the heap could run out half way
    per_row = (row + length - 1) // length
    b, _ = bounds(first, per_row, row, length)
    end = (b // row + 1) * row
    for n in range(first, last):  # without divisions, which would take a tenth of the time
        a = b
        end = end + row if a == end else end
        b = min(a + length, end)
        k, start, size = n, a, b - a
        if blocks is not None:
            k = blocks[n]
            start, _ = bounds(k, per_row, row, length)
        onwards = np.uint32(np.uint32(start) * stride)
        values, gradient, codes = view(v, a, size), view(g, a, size), view(rms, start, size)
        full_rms = row_for(rms, work, 0, size)
        full_momentum, full_mg = row_for(momentum, work, 1, reals * size), row_for(mg, work, 2, reals * size)
        momentum_codes, mg_codes = (
            view(momentum, reals * start, reals * size),
            view(mg, reals * start, reals * size),
        )
        dither = np.uint32(dithers[0] + onwards)
        if momentum is None and mg is None and average is None:
            scale = item(rms_scales, k)
            largest = sweep_codes(values, gradient, codes, scale, full_rms, dither, stride, numbers, limit, factor)
            if not fits(full_rms, largest, rms_scales, k):
                write(full_rms, codes, rms_scales, k, dither, stride)
            continue
        read(codes, rms_scales, k, full_rms)
        if momentum is not None:
            read(momentum_codes, momentum_scales, k, full_momentum)
        if mg is not None:
            read(mg_codes, mg_scales, k, full_mg)
            lift(full_rms, numbers_in(full_mg, v), least)
        full, averages = (numbers_in(full_momentum, v), numbers_in(full_mg, v)), view(average, a, size)
        sweep(values, gradient, full_rms, full[0], full[1], averages, numbers, limit, factor)
        write(full_rms, codes, rms_scales, k, dither, stride)
        if momentum is not None:
            each = np.uint32(dithers[1] + np.uint32(onwards * np.uint32(reals)))
            write(full_momentum, momentum_codes, momentum_scales, k, each, stride)
        if mg is not None:
            each = np.uint32(dithers[2] + np.uint32(onwards * np.uint32(reals)))
            write(full_mg, mg_codes, mg_scales, k, each, stride)


def _sweep_blocks(
    count, blocks, row, length, dithers, stride, least, like, v, g,
    rms, rms_scales, momentum, momentum_scales, mg, mg_scales, average, numbers, limit, factor,
):  # fmt: skip
    """Update all blocks; `dithers` are those of the first code of each slot, `like` has the dtype of reals."""
    at_once = max(1, TASK // length)
    for task in numba.prange((count + at_once - 1) // at_once):
        begin = task * at_once
        sweep_task(
            begin, min(begin + at_once, count), blocks, row, length, dithers, stride, least, like, v, g,
            rms, rms_scales, momentum, momentum_scales, mg, mg_scales, average, numbers, limit, factor,
        )  # fmt: skip


sweep_blocks = kernel(_sweep_blocks)
sweep_blocks_parallel = parallel_kernel(_sweep_blocks)


@kernel
def read_blocks(codes, scales, row, length, out):
    """Write the numbers of all blocks."""
    per_row = (row + length - 1) // length
    for k in range(per_row * (out.size // row)):
        a, b = bounds(k, per_row, row, length)
        read(codes[a:b], scales, k, out[a:b])


@kernel
def write_blocks(numbers, codes, scales, row, length):
    """Put numbers into all blocks, rounded to the nearest."""
    per_row = (row + length - 1) // length
    for k in range(per_row * (numbers.size // row)):
        a, b = bounds(k, per_row, row, length)
        write(numbers[a:b], codes[a:b], scales, k, NEAREST, np.uint32(0))
