"""Sums over ranks that are the same to the bit on each of them, and for any MPI.

Each rank receives the others' parts of its share of a bucket and adds them up in the order of the ranks. So the
sum depends neither on how an MPI reduces, nor on buckets and shares; a single process that adds the same arrays in
turn gets the same.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rmsprop.distribute import buckets
from rmsprop.distribute.buckets import Bucket
from rmsprop.distribute.link import Link, raw, starts

Array = np.ndarray[Any, Any]

DEPTH = 2
"""Buckets that are under way at once in each of the two halves of a sum."""

AT_ONCE = 2**17
"""Bytes of all ranks together up to which each rank receives everything, and adds up all of it."""


class Scattered(NamedTuple):
    """A bucket of which the shares are on their way to those who add them up."""

    bucket: Bucket
    source: Array
    incoming: Array
    request: Any


def scatter(link: Link, bucket: Bucket, source: Array, incoming: Array) -> Scattered:
    """Send each rank its share, and receive this rank's from all others."""
    item, own = source.itemsize, bucket.bounds[link.rank + 1] - bucket.bounds[link.rank]
    sending = [(b - a) * item for a, b in pairwise(bucket.bounds)]
    receiving = [own * item] * link.size
    sending[link.rank] = receiving[link.rank] = 0  # what stays here need not be copied
    begins = [bound * item for bound in bucket.bounds[:-1]]
    request = link.comm.Ialltoallv(raw(source, sending, begins), raw(incoming, receiving, starts(receiving)))
    return Scattered(bucket, source, incoming, request)


@np.errstate(over="ignore", invalid="ignore")  # of gradients that are not finite, a warning says nothing new
def add(link: Link, sent: Scattered, out: Array) -> None:
    """Wait for all parts of this rank's share, and write their sum; `out` may be the source's own part."""
    link.wait([sent.request], "a sum")
    size = len(out)
    parts = [sent.incoming[k * size : (k + 1) * size] for k in range(link.size - 1)]
    parts.insert(link.rank, sent.source[sent.bucket.share(link.rank)])
    if link.rank > 1 and np.may_share_memory(out, parts[link.rank]):
        parts[link.rank] = parts[link.rank].copy()
    np.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        np.add(out, part, out=out)


def gather(link: Link, bucket: Bucket, values: Array) -> Any:
    """Begin to send this rank's share to all others; return the request."""
    item = values.itemsize
    sizes = [(b - a) * item for a, b in pairwise(bucket.bounds)]
    begins = [bound * item for bound in bucket.bounds[:-1]]
    return link.comm.Iallgatherv(_mpi_in_place(), raw(values, sizes, begins))


class Vector:
    """Arrays of one dtype, laid end to end, in which sums over ranks arrive bucket by bucket.

    Parameters
    ----------
    link : Link
    sizes : sequence of int
        Numbers of elements.
    dtype : dtype
    length : int
        Elements in a bucket.
    xp : module, default numpy
        The library of the arrays; CuPy if MPI takes memory of devices.
    """

    def __init__(self, link: Link, sizes: Sequence[int], dtype: Any, length: int, xp: Any = np) -> None:
        self._link = link
        self.batches: Any = None
        """What `rmsprop.distribute.overlap` keeps."""
        self.buckets = buckets.in_order(sizes, length, link.size)
        self.starts = list(buckets.offsets(self.buckets))
        self.total: Array = xp.empty(self.starts[-1], dtype)
        self.views = xp.split(self.total, np.cumsum(sizes)[:-1].tolist()) if sizes else []
        largest = max([bucket.bounds[1] for bucket in self.buckets], default=0) * (link.size - 1)
        self._incoming = [xp.empty(largest, dtype) for _ in range(min(DEPTH, len(self.buckets)))]
        is_small = len(self.buckets) == 1 and self.total.nbytes * link.size <= AT_ONCE
        self._is_at_once = is_small and xp is np

    def part(self, k: int) -> Array:
        """Return where the sums of a bucket arrive."""
        return self.total[self.starts[k] : self.starts[k + 1]]

    def sums(self, arrays: Sequence[Array]) -> Iterator[int]:
        """Add up flat arrays over the ranks; yield the number of each bucket of which the sums have arrived.

        Between one and the next, others are under way.
        """
        if self._is_at_once:
            self._sum_at_once(arrays)
            yield 0
            return
        scattered: deque[tuple[int, Scattered]] = deque()
        gathered: deque[tuple[int, Any]] = deque()
        for k, bucket in enumerate(self.buckets):
            source = buckets.packed(bucket, arrays, self.part(k))
            incoming = self._incoming[k % len(self._incoming)]
            scattered.append((k, scatter(self._link, bucket, source, incoming)))
            if len(scattered) == DEPTH:
                gathered.append(self._added(*scattered.popleft()))
            if len(gathered) == DEPTH:
                yield self._arrived(*gathered.popleft())
        while scattered:
            gathered.append(self._added(*scattered.popleft()))
        while gathered:
            yield self._arrived(*gathered.popleft())

    @np.errstate(over="ignore", invalid="ignore")
    def _sum_at_once(self, arrays: Sequence[Array]) -> None:
        """Add up so little that it is faster to send everything to all, once."""
        own = buckets.packed(self.buckets[0], arrays, self.total)
        first, *others = self._link.gathered(own, "a sum")
        self.total[...] = first
        for each in others:
            self.total += each

    def _added(self, k: int, sent: Scattered) -> tuple[int, Any]:
        add(self._link, sent, self.part(k)[sent.bucket.share(self._link.rank)])
        return k, gather(self._link, sent.bucket, self.part(k))

    def _arrived(self, k: int, request: Any) -> int:
        self._link.wait([request], "a sum")
        return k


class Shares:
    """Arrays of one dtype, each divided among the ranks: sums arrive for this rank's shares only.

    Parameters
    ----------
    link : Link
    sizes : sequence of int
        Numbers of elements.
    dtype : dtype
    length : int
        Elements in a bucket.
    """

    def __init__(self, link: Link, sizes: Sequence[int], dtype: Any, length: int) -> None:
        self._link = link
        self.buckets = buckets.by_owner(sizes, length, link.size)
        starts = list(buckets.offsets(self.buckets))
        total = np.empty(starts[-1], dtype)
        self._parts = [total[a:b] for a, b in pairwise(starts)]
        bounds = [buckets.shares(size, link.size)[link.rank : link.rank + 2] for size in sizes]
        ends = np.cumsum([0, *[stop - start for start, stop in bounds]])
        self._own = np.empty(ends[-1], dtype)
        self.views = [self._own[a:b] for a, b in pairwise(ends)]
        largest = max([b.share(link.rank).stop - b.share(link.rank).start for b in self.buckets], default=0)
        self._incoming = [np.empty(largest * (link.size - 1), dtype) for _ in range(DEPTH)]

    def sum(self, arrays: Sequence[Array]) -> None:
        """Add up flat arrays over the ranks, into `views`."""
        scattered: deque[tuple[Array, Scattered]] = deque()
        begin = 0
        for k, (bucket, part) in enumerate(zip(self.buckets, self._parts, strict=True)):
            share = bucket.share(self._link.rank)
            out = self._own[begin : begin + share.stop - share.start]
            begin += len(out)
            buckets.pack(bucket.segments, arrays, part)
            scattered.append((out, scatter(self._link, bucket, part, self._incoming[k % DEPTH])))
            if len(scattered) == DEPTH:
                out, sent = scattered.popleft()
                add(self._link, sent, out)
        while scattered:
            out, sent = scattered.popleft()
            add(self._link, sent, out)

    def exchange(self, arrays: Sequence[Array]) -> None:
        """Send this rank's shares of flat arrays to all others, and receive theirs; see `commit`."""
        requests: deque[Any] = deque()
        for bucket, part in zip(self.buckets, self._parts, strict=True):
            buckets.pack(bucket.owned(self._link.rank), arrays, part)
            requests.append(gather(self._link, bucket, part))
            if len(requests) == DEPTH:
                self._link.wait([requests.popleft()], "an exchange of variables")
        self._link.wait(requests, "an exchange of variables")

    def commit(self, arrays: Sequence[Array]) -> None:
        """Write what has been received to the arrays."""
        for bucket, part in zip(self.buckets, self._parts, strict=True):
            buckets.unpack(bucket.segments, arrays, part)


def _mpi_in_place() -> Any:
    from mpi4py import MPI

    return MPI.IN_PLACE
