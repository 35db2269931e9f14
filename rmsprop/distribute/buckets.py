"""Buckets: lists of arrays laid end to end and cut, of which each rank adds up a share."""

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from rmsprop.arrays.libraries import Host

Array = Host


class Segment(NamedTuple):
    """Part of an array, and where it stands in a bucket; all in elements."""

    position: int
    """Of the array in the list."""
    start: int
    stop: int
    at: int


class Bucket(NamedTuple):
    """Segments, end to end, that travel together."""

    segments: list[Segment]
    bounds: list[int]
    """Where the share of each rank begins, and the end of the last."""

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.bounds[-1]

    def share(self, rank: int) -> slice:
        """Return the part that a rank adds up."""
        return slice(self.bounds[rank], self.bounds[rank + 1])

    def by_rank(self) -> list[list[Segment]]:
        """Return the segments in the share of each rank, where shares are cut between segments."""
        found: list[list[Segment]] = [[] for _ in self.bounds[1:]]
        for segment in self.segments:
            found[bisect(self.bounds, segment.at) - 1].append(segment)
        return found


def shares(size: int, ranks: int) -> list[int]:
    """Return where the share of each rank of `size` elements begins, and the end of the last."""
    each = -(-size // ranks)
    return [min(rank * each, size) for rank in range(ranks + 1)]


def in_order(sizes: Sequence[int], length: int, ranks: int) -> list[Bucket]:
    """Cut arrays, laid end to end, into buckets of `length` elements, and these into shares."""
    offsets = [0, *accumulate(sizes)]
    buckets = []
    for begin in range(0, offsets[-1], length):
        end = min(begin + length, offsets[-1])
        segments = [
            Segment(k, max(begin - offset, 0), min(end - offset, size), max(offset - begin, 0))
            for k, (offset, size) in enumerate(zip(offsets, sizes, strict=False))
            if size and offset < end and offset + size > begin
        ]
        buckets.append(Bucket(segments, shares(end - begin, ranks)))
    return buckets


def by_owner(sizes: Sequence[int], length: int, ranks: int) -> list[Bucket]:
    """Cut arrays, each of which is divided among the ranks, into buckets of about `length` elements."""
    divided = [shares(size, ranks) for size in sizes]
    buckets = []
    for part in in_order([-(-size // ranks) for size in sizes], max(length // ranks, 1), 1):
        segments, bounds = [], [0]
        for rank in range(ranks):
            at = bounds[-1]
            for s in part.segments:
                first, end = divided[s.position][rank : rank + 2]
                start, stop = min(first + s.start, end), min(first + s.stop, end)
                segments += [Segment(s.position, start, stop, at)] * (stop > start)
                at += stop - start
            bounds.append(at)
        buckets.append(Bucket(segments, bounds))
    return buckets


def packed(segments: Sequence[Segment], arrays: Sequence[Array], into: Array, part: slice) -> Array:
    """Return a part of a bucket: where it lies in flat arrays, if in one piece, or copied to where it stands."""
    if len(segments) == 1 and arrays[segments[0].position].dtype == into.dtype:
        only = segments[0]
        return arrays[only.position][only.start : only.stop]
    pack(segments, arrays, into)
    return into[part]


def pack(segments: Sequence[Segment], arrays: Sequence[Array], into: Array) -> None:
    """Copy segments of flat arrays to where they stand in a bucket."""
    for position, start, stop, at in segments:
        into[at : at + stop - start] = arrays[position][start:stop]


def unpack(segments: Sequence[Segment], arrays: Sequence[Array], source: Array) -> None:
    """Copy segments from where they stand in a bucket to flat arrays."""
    for position, start, stop, at in segments:
        arrays[position][start:stop] = source[at : at + stop - start]


def offsets(buckets: Sequence[Bucket]) -> Iterator[int]:
    """Return where each bucket begins if all are laid end to end."""
    return accumulate([bucket.size for bucket in buckets], initial=0)
