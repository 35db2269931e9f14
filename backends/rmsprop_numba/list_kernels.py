"""The update and the norm of many arrays at once, as loops over a table of their pieces.

A piece is a stretch of an array: its row of the table holds the position of the array in the step's list, its
first element, its size, and the number of its first block. A task is what one thread does at a time: some pieces
that follow each other. The empty arrays `v`, `rms`, `momentum`, `mg` and `average` tell the dtypes; None stands
for what a step does not use.
"""

import numba
import numpy as np

from rmsprop_numba.kernels import BLOCK, LANES, is_finite, kernel, parallel_kernel, square_sum, sweep
from rmsprop_numba.optional import own
from rmsprop_numba.pointers import entry, stretch


@kernel
def sweep_pieces(
    pieces, addresses, gradients, v, rms, momentum, mg, average, numbers, limit, multiplied, factors
):  # fmt: skip
    """Update the pieces of a task."""
    for i in range(len(pieces)):
        k, start, size = pieces[i, 0], pieces[i, 1], pieces[i, 2]
        sweep(
            stretch(addresses[k, 0], start, size, v), stretch(gradients[k], start, size, v),
            stretch(addresses[k, 1], start, size, rms), stretch(addresses[k, 2], start, size, momentum),
            stretch(addresses[k, 3], start, size, mg), stretch(addresses[k, 4], start, size, average),
            own(numbers, multiplied, k), limit, entry(factors, k),
        )  # fmt: skip


def _sweep_list(
    tasks, pieces, addresses, gradients, v, rms, momentum, mg, average, numbers, limit, multiplied, factors
):  # fmt: skip
    """Update all pieces."""
    for task in numba.prange(len(tasks) - 1):
        sweep_pieces(
            pieces[tasks[task] : tasks[task + 1]], addresses, gradients,
            v, rms, momentum, mg, average, numbers, limit, multiplied, factors,
        )  # fmt: skip


@kernel
def square_pieces(pieces, gradients, g, limit, scale, sums):
    """Write the sum of squares of each block in the pieces of a task."""
    lanes = np.empty(LANES)
    for i in range(len(pieces)):
        piece = stretch(gradients[pieces[i, 0]], pieces[i, 1], pieces[i, 2], g)
        for block in range((piece.size + BLOCK - 1) // BLOCK):
            part = piece[block * BLOCK : (block + 1) * BLOCK]
            sums[pieces[i, 3] + block] = square_sum(part, limit, scale, lanes)


def _square_list(tasks, pieces, gradients, g, limit, scale, sums):
    """Write the sum of squares of each block in all pieces."""
    for task in numba.prange(len(tasks) - 1):
        square_pieces(pieces[tasks[task] : tasks[task + 1]], gradients, g, limit, scale, sums)


@kernel
def find_in_pieces(pieces, gradients, g, found):
    """Return the position of the first array in the pieces of a task that is not finite, if before `found`."""
    for i in range(len(pieces)):
        if pieces[i, 0] >= found:
            break
        if not is_finite(stretch(gradients[pieces[i, 0]], pieces[i, 1], pieces[i, 2], g)):
            return pieces[i, 0]
    return found


def _find_in_list(tasks, pieces, gradients, g, found):
    """Lower `found` to the position of the first array that is not finite."""
    lowest = found[0]
    for task in numba.prange(len(tasks) - 1):
        lowest = min(lowest, find_in_pieces(pieces[tasks[task] : tasks[task + 1]], gradients, g, found[0]))
    found[0] = lowest


sweep_list = kernel(_sweep_list)
sweep_list_parallel = parallel_kernel(_sweep_list)
square_list = kernel(_square_list)
square_list_parallel = parallel_kernel(_square_list)
find_in_list = kernel(_find_in_list)
find_in_list_parallel = parallel_kernel(_find_in_list)


@kernel
def add_blocks(sums, starts):
    """Return for each array the sum of its blocks, added in their order."""
    totals = np.zeros(len(starts) - 1)
    for k in range(len(totals)):
        for block in range(starts[k], starts[k + 1]):
            totals[k] += sums[block]
    return totals
