"""Sums over ranks that are the same to the bit on each of them, and for any MPI.

Each rank receives the others' parts of its share of a bucket and adds them up in the order of the ranks. So the
sum depends neither on how an MPI reduces, nor on buckets and shares; a single process that adds the same arrays in
turn gets the same.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import DType, Host, Namespace
from rmsprop.distribute import buckets
from rmsprop.distribute.buckets import Bucket
from rmsprop.distribute.link import Link, raw
from rmsprop.distribute.rows import Rows

Array = Host

DEPTH = 2
"""Buckets that are under way at once in each of the two halves of a sum."""

AT_ONCE = 2**20
"""Bytes of all ranks together up to which each rank receives everything, and adds up all of it."""

SCATTER, GATHER = 3, 4
"""Tags of parts to be added up, and of sums."""


class Scattered(NamedTuple):
    """A bucket of which the shares are on their way to those who add them up."""

    parts: list[Array]
    """What each rank has of this rank's share."""
    requests: list[Any]


def scatter(link: Link, shares: Sequence[Array], incoming: Array) -> Scattered:
    """Send each rank its share, and receive this rank's from all others."""
    size = shares[link.rank].size
    parts = [incoming[k * size : (k + 1) * size] for k in range(link.size - 1)]
    parts.insert(link.rank, shares[link.rank])
    requests = [link.comm.Irecv(raw(parts[rank]), rank, SCATTER) for rank in link.others if size]
    requests += [link.comm.Isend(raw(shares[rank]), rank, SCATTER) for rank in link.others if shares[rank].size]
    return Scattered(parts, requests)


def add(link: Link, sent: Scattered, out: Array) -> None:
    """Wait for all parts of this rank's share, and write their sum; `out` may be this rank's own part."""
    link.wait(sent.requests, "a sum")
    parts = list(sent.parts)
    if link.rank > 1 and np.may_share_memory(out, parts[link.rank]):
        parts[link.rank] = parts[link.rank].copy()
    add_in_order(parts, out)


@np.errstate(all="ignore")  # of gradients that are not finite, a warning says nothing new
def add_in_order(parts: Sequence[Array], out: Array) -> None:
    """Write the sum of arrays, which are added to the first one after the other."""
    np.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        np.add(out, part, out=out)


def gather(link: Link, bucket: Bucket, values: Array, own: Array) -> list[Any]:
    """Begin to send this rank's share to all others, and to receive theirs; return the requests."""
    shares = [(rank, values[bucket.share(rank)]) for rank in link.others]
    requests = [link.comm.Irecv(raw(share), rank, GATHER) for rank, share in shares if share.size]
    return requests + [link.comm.Isend(raw(own), rank, GATHER) for rank in link.others if own.size]


class Vector:
    """Arrays of one dtype, laid end to end, in which sums over ranks arrive bucket by bucket.

    Parameters
    ----------
    link : Link
    shapes : sequence of tuples of int
    dtype : dtype
    length : int
        Elements in a bucket.
    xp : module, default numpy
        The library of the arrays; CuPy if MPI takes memory of devices.
    """

    def __init__(
        self, link: Link, shapes: Sequence[tuple[int, ...]], dtype: DType, length: int, xp: Namespace = np
    ) -> None:
        self._link, sizes = link, [math.prod(shape) for shape in shapes]
        self.buckets = buckets.in_order(sizes, length, link.size)
        self.starts = list(buckets.offsets(self.buckets))
        self.total: Array = xp.empty(self.starts[-1], dtype)
        ends = np.cumsum(sizes).tolist()
        self.views = [self.total[e - n : e].reshape(s) for e, n, s in zip(ends, sizes, shapes, strict=True)]
        """Where the sums of each array arrive."""
        largest = max([bucket.bounds[1] for bucket in self.buckets], default=0) * (link.size - 1)
        self._incoming = [xp.empty(largest, dtype) for _ in self.buckets[:DEPTH]]
        is_small = len(self.buckets) == 1 and self.total.nbytes * link.size <= AT_ONCE
        self._rows = Rows(link, self.total.size, dtype) if is_small and xp is np else None

    def _part(self, k: int) -> Array:
        """Return where the sums of a bucket arrive."""
        return self.total[self.starts[k] : self.starts[k + 1]]

    def sum(self, arrays: Sequence[Array]) -> None:
        """Add up flat arrays over the ranks, into `views`."""
        if self._rows is not None:
            # It is so little that it is faster to send everything to all, once.
            np.concatenate(arrays, out=self._rows.own)
            self._rows.exchange("a sum")
            add_in_order(self._rows.rows, self.total)
            return
        scattered: deque[tuple[int, Scattered]] = deque()
        gathered: deque[list[Any]] = deque()
        for k, bucket in enumerate(self.buckets):
            source = buckets.packed(bucket.segments, arrays, self._part(k), slice(None))
            shares = [source[bucket.share(rank)] for rank in range(self._link.size)]
            scattered.append((k, scatter(self._link, shares, self._incoming[k % DEPTH])))
            if len(scattered) == DEPTH:
                gathered.append(self._added(*scattered.popleft()))
            if len(gathered) == DEPTH:
                self._link.wait(gathered.popleft(), "a sum")
        while scattered:
            gathered.append(self._added(*scattered.popleft()))
        while gathered:
            self._link.wait(gathered.popleft(), "a sum")

    def _added(self, k: int, sent: Scattered) -> list[Any]:
        bucket, total = self.buckets[k], self._part(k)
        own = total[bucket.share(self._link.rank)]
        add(self._link, sent, own)
        return gather(self._link, bucket, total, own)


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

    def __init__(self, link: Link, sizes: Sequence[int], dtype: DType, length: int) -> None:
        self._link = link
        self.buckets = buckets.by_owner(sizes, length, link.size)
        self._segments = [bucket.by_rank() for bucket in self.buckets]
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
        for k, bucket in enumerate(self.buckets):
            shares = [self._packed(k, rank, arrays) for rank in range(self._link.size)]
            share = bucket.share(self._link.rank)
            out = self._own[begin : begin + share.stop - share.start]
            begin += len(out)
            scattered.append((out, scatter(self._link, shares, self._incoming[k % DEPTH])))
            if len(scattered) == DEPTH:
                out, sent = scattered.popleft()
                add(self._link, sent, out)
        while scattered:
            out, sent = scattered.popleft()
            add(self._link, sent, out)

    def exchange(self, arrays: Sequence[Array]) -> None:
        """Send this rank's shares of flat arrays to all others, and receive theirs; see `commit`."""
        requests: deque[list[Any]] = deque()
        for k, (bucket, part) in enumerate(zip(self.buckets, self._parts, strict=True)):
            own = self._packed(k, self._link.rank, arrays)
            requests.append(gather(self._link, bucket, part, own))
            if len(requests) == DEPTH:
                self._link.wait(requests.popleft(), "an exchange of variables")
        while requests:
            self._link.wait(requests.popleft(), "an exchange of variables")

    def commit(self, arrays: Sequence[Array]) -> None:
        """Write what has been received to the arrays."""
        for segments, part in zip(self._segments, self._parts, strict=True):
            for rank in self._link.others:
                buckets.unpack(segments[rank], arrays, part)

    def _packed(self, k: int, rank: int, arrays: Sequence[Array]) -> Array:
        """Return a rank's share of a bucket, copied there if need be."""
        return buckets.packed(self._segments[k][rank], arrays, self._parts[k], self.buckets[k].share(rank))
