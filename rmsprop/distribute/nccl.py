"""Replicas with a GPU each: gradients travel from device to device by NCCL, agreements by MPI."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rmsprop.distribute.agreement import Statement
from rmsprop.distribute.link import Link
from rmsprop.distribute.mpi import BUCKET_BYTES, TIMEOUT, checked, communicator
from rmsprop.distribute.ranks import Ranks
from rmsprop.distribute.reduction import Reduction, Sparse, places_of
from rmsprop.distribute.strategy import Strategy

SUM, BYTE = 0, 1
TYPES = {"float32": (7, 1), "float64": (8, 1), "complex64": (7, 2), "complex128": (8, 2), "int64": (4, 1)}
"""Of dtypes, NCCL's number of the type that they consist of, and how many of it; as in nccl.h."""


class NCCLStrategy(Strategy):
    """Data-parallel training with CuPy arrays: each rank of an MPI communicator has a GPU of its own.

    As `rmsprop.distribute.MPIStrategy`, but gradients of CuPy arrays are added up on the devices, in the current
    stream. A step waits until the sums have arrived before it changes anything, and looks for errors
    of NCCL meanwhile. The sums are the same to the bit on all ranks; in which order they are made is up to NCCL.
    NumPy arrays travel by MPI.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default ``mpi4py.MPI.COMM_WORLD``. To make a strategy is collective: all its ranks do.
    device : int, optional
        The device of this rank, made the current one. By default the ranks of a machine take them in turn.
    timeout : float, default 300.0
        Seconds that a rank waits for the others.
    bucket_bytes : int, default 16 MiB
        Size of the buckets in which gradients travel.

    Raises
    ------
    ImportError
        If mpi4py, CuPy or the library NCCL is missing.

    Examples
    --------
    ``mpiexec -n 8 python program.py``, where the program begins with::

        strategy = rmsprop.distribute.NCCLStrategy()
        with strategy.scope():
            optimizer = rmsprop.RMSprop(learning_rate=0.1)
    """

    def __init__(
        self,
        comm: Any = None,
        *,
        device: int | None = None,
        timeout: float = TIMEOUT,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        checked(timeout=timeout, bucket_bytes=bucket_bytes)
        self._given = {"comm": comm, "device": device, "timeout": timeout, "bucket_bytes": bucket_bytes}
        nccl = _nccl()
        comm = communicator(comm)
        _choose(comm, device)
        link = Link(comm, timeout)
        own = nccl.get_unique_id() if link.rank == 0 else ()
        unique = np.frombuffer(link.exchange(np.array(own, np.int64).tobytes(), "the start")[0], np.int64)
        ring = nccl.NcclCommunicator(comm.size, tuple(unique.tolist()), comm.rank)
        self.ranks = Ranks(link, DeviceReduction(link, ring, bucket_bytes))


class DeviceReduction(Reduction):
    """Adds up CuPy arrays over the ranks by NCCL, and others by MPI.

    Parameters
    ----------
    link : Link
    communicator : cupy.cuda.nccl.NcclCommunicator
    bucket_bytes : int
    """

    def __init__(self, link: Link, communicator: Any, bucket_bytes: int) -> None:
        super().__init__(link, bucket_bytes)
        self._communicator = communicator
        self._totals: dict[str, Any] = {}

    def dense(self, dtype: str, arrays: Sequence[Any]) -> list[Any]:
        """Return the sums of arrays of one library; those of CuPy lie in the buckets."""
        import cupy

        if not isinstance(arrays[0], cupy.ndarray) or dtype not in TYPES:
            return super().dense(dtype, arrays)
        with arrays[0].device, self._aborting():
            ends = np.cumsum([array.size for array in arrays]).tolist()
            total = self._total(dtype, -(-ends[-1] // self.link.size) * self.link.size)
            views = [total[end - a.size : end].reshape(a.shape) for end, a in zip(ends, arrays, strict=True)]
            for view, array in zip(views, arrays, strict=True):
                view[...] = array
            length = max(self._bucket_bytes // total.itemsize // self.link.size, 1) * self.link.size
            for begin in range(0, total.size, length):
                self._sum(total[begin : begin + length], *TYPES[dtype])
            self._wait()
        return views

    def gathered(self, gradient: Sparse) -> Sparse:
        """Return the rows or windows that all ranks list, in the order of the ranks."""
        import cupy

        if not isinstance(gradient.values, cupy.ndarray):
            return super().gathered(gradient)
        with gradient.values.device, self._aborting():
            counts = self.link.counts([len(gradient.values)], "a sparse gradient")[:, 0]
            places = self._gathered(cupy.asarray(places_of(gradient), cupy.int64), counts)
            values = self._gathered(gradient.values, counts)
            self._wait()
        return type(gradient)(values, places)

    def _total(self, dtype: str, size: int) -> Any:
        """Return the buckets, end to end."""
        import cupy

        kept = self._totals.get(dtype)
        if kept is None or kept.size < size or kept.device != cupy.cuda.Device():
            kept = self._totals[dtype] = cupy.zeros(size, dtype)
        return kept[:size]

    def _sum(self, part: Any, kind: int, factor: int) -> None:
        """Add up a bucket in place: each rank its share, which then goes to all."""
        import cupy

        stream, count = cupy.cuda.get_current_stream().ptr, part.size // self.link.size
        start = part.data.ptr
        own = start + self.link.rank * count * part.itemsize
        self._communicator.reduceScatter(start, own, count * factor, kind, SUM, stream)
        self._communicator.allGather(own, start, count * factor, kind, stream)

    def _gathered(self, own: Any, counts: Any) -> Any:
        """Return the rows of all ranks, which travel as if all had as many as the one with the most."""
        import cupy

        everything = cupy.empty((self.link.size, int(counts.max()), *own.shape[1:]), own.dtype)
        everything[self.link.rank, : len(own)] = own
        row = everything.nbytes // self.link.size
        start, stream = everything.data.ptr, cupy.cuda.get_current_stream().ptr
        if row:
            self._communicator.allGather(start + self.link.rank * row, start, row, BYTE, stream)
        return cupy.concatenate([part[:count] for part, count in zip(everything, counts.tolist(), strict=True)])

    def _wait(self) -> None:
        """Wait until the current stream is done, or NCCL reports an error, or the time is over."""
        import cupy

        event = cupy.cuda.Event(disable_timing=True)
        event.record()
        self.link.wait([Pending(event, self._communicator)], "a sum by NCCL")
        self.link.agree(Statement("the end of a sum by NCCL"))  # if it failed for one rank, it is used by none

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        """End what NCCL is doing if this step fails: it would wait for ever for the other ranks."""
        try:
            yield
        except BaseException:
            self._communicator.abort()
            raise


class Pending(NamedTuple):
    """Work of NCCL on a stream, to be waited for as for a request of MPI."""

    event: Any
    communicator: Any

    def Test(self) -> bool:
        """Tell whether it is done; raise the error that NCCL has found, if any."""
        self.communicator.check_async_error()
        return bool(self.event.done)


def _nccl() -> Any:
    try:
        from cupy.cuda import nccl
    except ImportError as error:
        raise ImportError("NCCLStrategy needs CuPy: install one of the extras 'cuda12' and 'cuda13'.") from error
    if not nccl.available:
        raise ImportError("NCCLStrategy needs the library NCCL: pip install nvidia-nccl-cu13, or -cu12.")
    return nccl


def _choose(comm: Any, device: int | None) -> None:
    """Make a device the current one."""
    import cupy
    from mpi4py import MPI

    if device is None:
        local = comm.Split_type(MPI.COMM_TYPE_SHARED)
        device = local.rank % cupy.cuda.runtime.getDeviceCount()
        local.Free()
    cupy.cuda.Device(device).use()
