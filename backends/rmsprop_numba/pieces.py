"""Lists of arrays, divided into pieces for the kernels of lists."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop_numba.kernels import BLOCK, CHUNK

Array = Host
Row = tuple[Array | None, ...]
"""Arrays of one size, with one axis and without gaps; None for one that is not used."""


class Batch(NamedTuple):
    """The arrays of a list that have the same dtypes; see `rmsprop_numba.list_kernels`."""

    likes: tuple[Array | None, ...]
    """Empty arrays of these dtypes."""
    size: int
    """How many elements there are in all."""
    tasks: Array
    """The first piece of each task, and the end of the last."""
    pieces: Array


class Division(NamedTuple):
    """A list of arrays, divided."""

    batches: list[Batch]
    blocks: Array
    """The number of the first block of each array, and the end of the last."""


def divided(rows: Sequence[Row]) -> Division:
    """Divide a list of arrays, each together with those that are used with it."""
    groups: dict[Any, list[int]] = {}
    for k, row in enumerate(rows):
        groups.setdefault(tuple([a if a is None else a.dtype.char for a in row]), []).append(k)
    sizes = [_size(row) for row in rows]
    blocks = [*accumulate([-(-size // BLOCK) for size in sizes], initial=0)]
    batches = [_batch(positions, rows[positions[0]], sizes, blocks) for positions in groups.values()]
    return Division(batches, np.array(blocks, np.int64))


def _batch(positions: list[int], row: Row, sizes: list[int], blocks: list[int]) -> Batch:
    pieces = [piece for k in positions for piece in _pieces(k, sizes[k], blocks[k])]
    return Batch(
        tuple([a if a is None else np.empty(0, a.dtype) for a in row]),
        sum([sizes[k] for k in positions]),
        np.array(_tasks(pieces), np.int64),
        np.array(pieces, np.int64).reshape(-1, 4),
    )


def _pieces(position: int, size: int, block: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, size, CHUNK):
        yield position, start, min(CHUNK, size - start), block + start // BLOCK


def _tasks(pieces: list[tuple[int, int, int, int]]) -> list[int]:
    """Return where tasks begin: small pieces are taken together, up to the size of a chunk."""
    starts, filled = [0], 0
    for i, (_, _, size, _) in enumerate(pieces):
        if filled + size > CHUNK:
            starts.append(i)
            filled = 0
        filled += size
    return [*starts, len(pieces)]


def _size(row: Row) -> int:
    first = row[0]
    return 0 if first is None else first.size
