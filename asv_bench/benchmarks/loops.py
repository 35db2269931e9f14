"""Loops that stream arrays of float32 once, and compute nothing."""

import functools

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

compiled = functools.partial(numba.njit, error_model="numpy", nogil=True)


@intrinsic
def pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.uint64), generate


@compiled()
def span(address, begin, end):
    """Return the elements from `begin` to `end` of an array."""
    return numba.carray(pointer(address + np.uint64(4 * begin)), (end - begin,))


@compiled()
def read_three_write_two(g, a, b):
    for i in range(g.size):
        nothing = g[i] * np.float32(0)
        a[i] += nothing
        b[i] += nothing


@compiled()
def read_four_write_three(g, a, b, c):
    for i in range(g.size):
        nothing = g[i] * np.float32(0)
        a[i] += nothing
        b[i] += nothing
        c[i] += nothing


@compiled()
def read_five_write_four(g, a, b, c, d):
    for i in range(g.size):
        nothing = g[i] * np.float32(0)
        a[i] += nothing
        b[i] += nothing
        c[i] += nothing
        d[i] += nothing


@compiled(fastmath=True)
def sum_of_squares(g):
    total = np.float32(0)
    for i in range(g.size):  # unlike "for x in g", this is vectorised
        total += g[i] * g[i]
    return total


def stream(tables, first, pieces):
    """Stream lists of arrays, whose addresses are the rows of `tables`; the first list is only read."""
    for part in numba.prange(first.size - 1):
        for p in range(first[part], first[part + 1]):
            which, begin, end = pieces[p]
            g = span(tables[0, which], begin, end)
            a = span(tables[1, which], begin, end)
            b = span(tables[2, which], begin, end)
            if len(tables) == 3:
                read_three_write_two(g, a, b)
            elif len(tables) == 4:
                read_four_write_three(g, a, b, span(tables[3, which], begin, end))
            else:
                c, d = span(tables[3, which], begin, end), span(tables[4, which], begin, end)
                read_five_write_four(g, a, b, c, d)


def read(tables, first, pieces, squares):
    """Read the first list of arrays, as their norm has to."""
    for part in numba.prange(first.size - 1):
        total = np.float32(0)
        for p in range(first[part], first[part + 1]):
            which, begin, end = pieces[p]
            total += sum_of_squares(span(tables[0, which], begin, end))
        squares[part] = total


@compiled(parallel=True)
def stream_rows(values, indices, a, b):
    """Read the rows of a gradient, and read and write the rows that they are for.

    Two threads may write a row that is listed twice: they write what was there.
    """
    for k in numba.prange(indices.size):
        row = indices[k]
        for j in range(values.shape[1]):
            nothing = values[k, j] * np.float32(0)
            a[row, j] += nothing
            b[row, j] += nothing


serial = compiled()(stream), compiled()(read)
parallel = compiled(parallel=True)(stream), compiled(parallel=True)(read)
