"""Sums over ranks that are the same to the bit on each of them, and for any MPI.

Each rank receives the others' parts of its share of a bucket and adds them up in the order of the ranks. So the
sum depends neither on how an MPI reduces, nor on buckets and shares; a single process that adds the same arrays in
turn gets the same.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop.distribute import buckets
from rmsprop.distribute.buckets import Bucket
from rmsprop.distribute.link import Link, raw, starts

Array = np.ndarray[Any, Any]

DEPTH = 2
"""Buckets that are under way at once in each of the two halves of a sum."""


class Scattered(NamedTuple):
    """A bucket of which the shares are on their way to those who add them up."""

    bucket: Bucket
    source: Array
    incoming: Array
    request: Any


def scatter(link: Link, bucket: Bucket, source: Array, incoming: Array) -> Scattered:
    """Send each rank its share, and receive this rank's from all others."""
    item, own = source.itemsize, bucket.bounds[link.rank + 1] - bucket.bounds[link.rank]
    sending = [(b - a) * item for a, b in zip(bucket.bounds, bucket.bounds[1:], strict=False)]
    receiving = [own * item] * link.size
    sending[link.rank] = receiving[link.rank] = 0  # what stays here need not be copied
    begins = [bound * item for bound in bucket.bounds[:-1]]
    request = link.comm.Ialltoallv(raw(source, sending, begins), raw(incoming, receiving, starts(receiving)))
    return Scattered(bucket, source, incoming, request)


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
    sizes = [(b - a) * item for a, b in zip(bucket.bounds, bucket.bounds[1:], strict=False)]
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
    """

    def __init__(self, link: Link, sizes: Sequence[int], dtype: Any, length: int) -> None:
        self._link = link
        self.batches: Any = None
        """What `rmsprop.distribute.overlap` keeps."""
        self.buckets = buckets.in_order(sizes, length, link.size)
        self.starts = list(buckets.offsets(self.buckets))
        self.total = np.empty(self.starts[-1], dtype)
        self.views = np.split(self.total, np.cumsum(sizes)[:-1]) if sizes else []
        largest = max([bucket.bounds[1] for bucket in self.buckets], default=0) * (link.size - 1)
        self._incoming = [np.empty(largest, dtype) for _ in range(min(DEPTH, len(self.buckets)))]

    def part(self, k: int) -> Array:
        """Return where the sums of a bucket arrive."""
        return self.total[self.starts[k] : self.starts[k + 1]]

    def sums(self, arrays: Sequence[Array]) -> Iterator[int]:
        """Add up flat arrays over the ranks; yield the number of each bucket of which the sums have arrived.

        Between one and the next, others are under way.
        """
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

    def _added(self, k: int, sent: Scattered) -> tuple[int, Any]:
        add(self._link, sent, self.part(k)[sent.bucket.share(self._link.rank)])
        return k, gather(self._link, sent.bucket, self.part(k))

    def _arrived(self, k: int, request: Any) -> int:
        self._link.wait([request], "a sum")
        return k


def _mpi_in_place() -> Any:
    from mpi4py import MPI

    return MPI.IN_PLACE
