"""Buckets as tables: a row for each rank, all of the same length, since NCCL cuts what it is given evenly.

Each array is divided as by `rmsprop.distribute.buckets.shares`. A row ends with nothing where a share is smaller.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

from rmsprop.arrays.libraries import Array
from rmsprop.distribute.buckets import Segment, in_order


class Tables:
    """The tables that arrays travel in, one after the other.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of elements.
    length : int
        Elements in a table.
    ranks : int
    """

    def __init__(self, sizes: Sequence[int], length: int, ranks: int) -> None:
        self._ranks, self._each = ranks, [-(-size // ranks) for size in sizes]
        self._width = max(length // ranks, 1)
        self.columns = sum(self._each)
        """Elements of one rank in all tables together."""
        self._segments = [bucket.segments for bucket in in_order(self._each, self._width, 1)]

    def cut(self, total: Array) -> Iterator[tuple[slice, Array, list[Segment]]]:
        """Take flat memory apart: return each table, which columns of all it has, and what stands in its rows."""
        for k, segments in enumerate(self._segments):
            begin = k * self._width
            end = min(begin + self._width, self.columns)
            table = total[begin * self._ranks : end * self._ranks].reshape(self._ranks, end - begin)
            yield slice(begin, end), table, segments

    def shares(self, own: Array, sizes: Sequence[int]) -> list[Array]:
        """Take what one rank has in all tables, end to end, apart into its shares, of these sizes."""
        begins = accumulate(self._each, initial=0)
        return [own[begin : begin + size] for begin, size in zip(begins, sizes, strict=False)]


def places(table: Array, segment: Segment, flat: Array) -> Iterator[tuple[Array, Array]]:
    """Return the parts of a table and of a flat array that a segment says are the same."""
    each = -(-flat.size // len(table))
    full, rest = divmod(flat.size, each)
    columns = table[:, segment.at : segment.at + segment.stop - segment.start]
    if full:
        yield columns[:full], flat[: full * each].reshape(full, each)[:, segment.start : segment.stop]
    stop = min(segment.stop, rest)
    if stop > segment.start:
        begin = full * each
        yield columns[full, : stop - segment.start], flat[begin + segment.start : begin + stop]
