"""The update of variables whose slots are codes, block by block, with the numbers of a block in the fastest cache.

A slot is a pair of codes and scales (see `rmsprop_numba.codes`), or None. Blocks never cross the ends of rows:
each row of `row` elements has blocks of `length`, of which the last may be shorter. `blocks` lists those to
update, in the order of their elements in `v` and `g`; None stands for all.
"""

import numba
import numpy as np

from rmsprop_numba.codes import NEAREST, decode, encode
from rmsprop_numba.kernels import inlined_kernel, kernel, parallel_kernel, sweep

TASK = 16_384
"""Elements that one thread takes at a time, at least."""


@inlined_kernel
def start_of(k, row, length):
    """Return the first element of a block, and of the one after it."""
    in_row = (row + length - 1) // length
    begin, place = k // in_row * row, k % in_row * length
    return begin + place, begin + min(place + length, row)


@inlined_kernel
def read(slot, k, start, work):
    """Write a block as numbers, if there is the slot."""
    if slot is not None:
        decode(slot[0][start : start + work.size], slot[1], k, work)


@inlined_kernel
def used(work, slot):
    """Return the memory of a block, or None without a slot."""
    return None if slot is None else work


@inlined_kernel
def write(numbers, slot, k, start, dither, multiples):
    """Put a block back, as codes."""
    if slot is not None:
        encode(numbers, slot[0][start : start + numbers.size], slot[1], k, dither, multiples)


@inlined_kernel
def lift(r, mg, least):
    """Let the mean of squares exceed the square of the mean by as much as rounding may hide."""
    if mg is not None:
        for j in range(r.size):
            floor = mg[j] * mg[j] * r.dtype.type(least)
            r[j] = floor if r[j] < floor else r[j]  # NaN stays NaN


@kernel
def sweep_blocks(
    first, last, blocks, row, length, dithers, stride, least, v, g, r, mom, mg,
    lr, rho, new, momentum, inner, outer, limit, factor
):  # fmt: skip
    """Update the blocks from `first` to `last`; `dithers` are those of the first element of each slot."""
    work, multiples = np.empty((3, length), v.dtype), multiples_of(stride, length)
    for n in range(first, last):
        a, b = start_of(n, row, length)
        k = n if blocks is None else blocks[n]
        start, _ = start_of(k, row, length)
        size, onwards = b - a, np.uint32(np.uint32(start) * stride)
        rms, velocity, mean = work[0, :size], used(work[1, :size], mom), used(work[2, :size], mg)
        read(r, k, start, rms)
        read(mom, k, start, velocity)
        read(mg, k, start, mean)
        lift(rms, mean, least)
        sweep(v[a:b], g[a:b], rms, velocity, mean, lr, rho, new, momentum, inner, outer, limit, factor)
        write(rms, r, k, start, np.uint32(dithers[0] + onwards), multiples)
        write(velocity, mom, k, start, np.uint32(dithers[1] + onwards), multiples)
        write(mean, mg, k, start, np.uint32(dithers[2] + onwards), multiples)


@kernel
def multiples_of(stride, count):
    """Return so many multiples of a number of 32 bits: to read them is faster than to multiply in a loop."""
    multiples = np.empty(count, np.uint32)
    for j in range(count):
        multiples[j] = np.uint32(j) * stride
    return multiples


@parallel_kernel
def sweep_blocks_parallel(
    first, last, blocks, row, length, dithers, stride, least, v, g, r, mom, mg,
    lr, rho, new, momentum, inner, outer, limit, factor
):  # fmt: skip
    """Do as `sweep_blocks`, in several threads."""
    at_once = max(1, TASK // length)
    for task in numba.prange((last - first + at_once - 1) // at_once):
        begin = first + task * at_once
        sweep_blocks(
            begin, min(begin + at_once, last), blocks, row, length, dithers, stride, least, v, g, r, mom, mg,
            lr, rho, new, momentum, inner, outer, limit, factor,
        )  # fmt: skip


@kernel
def read_blocks(codes, scales, row, length, out):
    """Write the numbers of all blocks."""
    for k in range((row + length - 1) // length * (out.size // max(row, 1))):
        a, b = start_of(k, row, length)
        decode(codes[a:b], scales, k, out[a:b])


@kernel
def write_blocks(numbers, codes, scales, row, length):
    """Put numbers into all blocks, rounded to the nearest."""
    nothing = np.zeros(length, np.uint32)
    for k in range((row + length - 1) // length * (numbers.size // max(row, 1))):
        a, b = start_of(k, row, length)
        encode(numbers[a:b], codes[a:b], scales, k, NEAREST, nothing)
