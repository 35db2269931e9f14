"""The limit that memory sets: the arrays of a step, streamed once."""

import itertools

import numba
import numpy as np

from benchmarks import loops

PARALLEL_FROM = 65_536
"""Elements from which on two threads are faster than one."""


def streaming(streams, with_norm=False):
    """Return a function that reads all arrays and writes all but the gradients, as a step does.

    Parameters
    ----------
    streams : list of lists of arrays
        The gradients, then what is updated: slots and variables. All are contiguous, of float32.
    with_norm : bool
        Whether the gradients are read once before, as their norm has to be.
    """
    sizes = [array.size for array in streams[0]]
    is_parallel = sum(sizes) >= PARALLEL_FROM
    stream, read = loops.parallel if is_parallel else loops.serial
    tables = np.array([[array.ctypes.data for array in arrays] for arrays in streams], np.uint64)
    first, pieces = cut(sizes, numba.get_num_threads() if is_parallel else 1)
    squares = np.empty(len(first))

    def step():
        if with_norm:
            read(tables, first, pieces, squares)
        stream(tables, first, pieces)

    return step


def gathering(values, indices, slot, variable):
    """Return a function that reads the rows of a gradient, and reads and writes those that they are for."""

    def step():
        loops.stream_rows(values, indices, slot, variable)

    return step


def cut(sizes, parts):
    """Return where each of equal parts of a list of arrays begins, and its pieces (array, begin, end)."""
    edges = [sum(sizes) * part // parts for part in range(parts + 1)]
    first, pieces = [0], []
    for begin, end in itertools.pairwise(edges):
        offset = 0
        for which, size in enumerate(sizes):
            low, high = max(begin - offset, 0), min(end - offset, size)
            if low < high:
                pieces.append((which, low, high))
            offset += size
        first.append(len(pieces))
    return np.array(first), np.array(pieces)
