"""Rows of arrays of any library, which may be immutable: taken, summed and put in the place of others.

The standard has no scatter, so that whole tables are written: the cost grows with their height.
"""

import numpy as np

from rmsprop.arrays.libraries import Array, Host, Namespace, as_beside, namespace

MANY = 128
"""Gradients of one row that are added up one after the other by the kernels of NumPy and CuPy.

Where there are more, blocks of so many are added up, and then their sums, in order: a GPU makes all blocks at
once.
"""


def sums_by_row(xp: Namespace, values: Array, order: Host, starts: Host) -> Array:
    """Return the sum of the values of each row: first the first of all rows, then the second, and so on."""
    counts = np.diff(starts)
    total = taken(xp, values, order[starts[:-1]])
    for k in range(1, int(counts.max())):
        positions = order[starts[:-1] + np.minimum(k, counts - 1)]
        has_more = _column(as_beside(counts > k, values), values)
        total = xp.where(has_more, total + taken(xp, values, positions), total)
    return total


def with_rows(xp: Namespace, table: Array, rows: Host, new: Array) -> Array:
    """Return a table in which some rows are new."""
    source = np.zeros(table.shape[0], np.int64)
    source[rows] = np.arange(len(rows))
    is_new = np.zeros(table.shape[0], np.bool_)
    is_new[rows] = True
    return xp.where(
        _column(as_beside(is_new, table), table), xp.take(new, as_beside(source, table), axis=0), table
    )


def taken(xp: Namespace, array: Array, rows: Host) -> Array:
    """Return rows of an array."""
    if xp.__name__ == "array_api_compat.dask.array":  # whose `take` errs in the shape if there is one index
        return array[rows]
    return xp.take(array, as_beside(rows, array), axis=0)


def _column(flags: Array, like: Array) -> Array:
    xp = namespace(flags)
    return xp.reshape(flags, (-1, *[1] * (len(like.shape) - 1)))


def rows_of(indices: Host) -> tuple[Host, Host, Host]:
    """Return the distinct rows, the positions in `indices` ordered by row, and where each row starts there.

    The last start is the end. Positions of one row keep their order, so that their sum has one result.
    """
    order = np.argsort(indices, kind="stable")
    ordered = indices[order].astype(np.intp, copy=False)
    is_first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first], order, np.append(np.flatnonzero(is_first), len(ordered))
