"""Replicas with a GPU each: gradients travel from device to device by NCCL, agreements by MPI."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import Array
from rmsprop.distribute.agreement import Statement
from rmsprop.distribute.buckets import shares
from rmsprop.distribute.link import Link
from rmsprop.distribute.mpi import BUCKET_BYTES, TIMEOUT, checked, communicator
from rmsprop.distribute.ranks import Ranks
from rmsprop.distribute.reduction import Reduction, Sparse, places_of
from rmsprop.distribute.strategy import Strategy
from rmsprop.distribute.tables import Tables, places

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
    shard_state : bool, default False
        Whether each rank keeps and updates only its share of the slots, one of n equal parts of each variable: it
        gets the sums of its share of the gradients, and gives the others its share of the variables. Where NCCL
        makes a sum in one order whichever rank gets it, as with two ranks, the results are the same to the bit.
        Variables must be CuPy arrays on the rank's device, of any layout, or NumPy arrays in C order, without
        constraints. Gradients of CuPy arrays must be dense. ``get_weights`` and slots' ``numpy()`` gather whole
        slots: all ranks call them, in the same order.
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
        shard_state: bool = False,
        timeout: float = TIMEOUT,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        checked(timeout=timeout, bucket_bytes=bucket_bytes)
        self._given = {
            "comm": comm,
            "device": device,
            "shard_state": shard_state,
            "timeout": timeout,
            "bucket_bytes": bucket_bytes,
        }
        nccl = _nccl()
        comm = communicator(comm)
        _choose(comm, device)
        link = Link(comm, timeout)
        own = nccl.get_unique_id() if link.rank == 0 else ()
        unique = np.frombuffer(link.exchange(np.array(own, np.int64).tobytes(), "the start")[0], np.int64)
        ring = nccl.NcclCommunicator(comm.size, tuple(unique.tolist()), comm.rank)
        self.shard_state = shard_state and link.size > 1
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
        import cupy

        self._communicator = communicator
        self._device: int = cupy.cuda.Device().id
        self._totals: dict[str, Any] = {}

    @property
    def divided(self) -> str:
        """What can be divided into shares, for messages."""
        return f"CuPy arrays on device {self._device}, which is that of this rank, or NumPy arrays"

    def divides(self, array: Array) -> bool:
        """Tell whether arrays of this kind can be divided into shares."""
        import cupy

        return super().divides(array) or (type(array) is cupy.ndarray and array.device.id == self._device)

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

    def sums_of_shares(self, dtype: str, arrays: Sequence[Array]) -> list[Array]:
        """Return the sums of this rank's share of arrays of one library, flat."""
        import cupy

        if not isinstance(arrays[0], cupy.ndarray):
            return super().sums_of_shares(dtype, arrays)
        with arrays[0].device, self._aborting():
            tables, total = self._tables(dtype, arrays)
            flat, own = [array.reshape(-1) for array in arrays], cupy.empty(tables.columns, dtype)
            for columns, table, segments in tables.cut(total):
                for segment in segments:
                    for into, source in places(table, segment, flat[segment.position]):
                        into[...] = source
                self._scatter(table, own[columns], *TYPES[dtype])
            self._wait()
        bounds = [shares(array.size, self.link.size)[self.link.rank :] for array in arrays]
        return tables.shares(own, [stop - start for start, stop, *_ in bounds])

    def exchanged(self, arrays: Sequence[Array], own: Sequence[Array]) -> Callable[[], None]:
        """Send this rank's shares of arrays of one dtype to all others; return what writes those received."""
        import cupy

        if not isinstance(arrays[0], cupy.ndarray):
            return super().exchanged(arrays, own)
        with arrays[0].device, self._aborting():
            tables, total = self._tables(arrays[0].dtype.name, arrays)
            # All that commits is to need is got before: it may fail for lack of memory.
            flat = [a.reshape(-1) if a.flags.c_contiguous else cupy.empty(a.size, a.dtype) for a in arrays]
            for _, table, segments in tables.cut(total):
                for position, start, stop, at in segments:
                    part = own[position][start:stop]
                    table[self.link.rank, at : at + part.size] = part
                self._gather(table[self.link.rank], table)
            self._wait()

        def write() -> None:
            with arrays[0].device:
                for _, table, segments in tables.cut(total):
                    for segment in segments:
                        for source, into in places(table, segment, flat[segment.position]):
                            into[...] = source
                for array, elements in zip(arrays, flat, strict=True):
                    if not array.flags.c_contiguous:
                        array[...] = elements.reshape(array.shape)

        return write

    def _tables(self, dtype: str, arrays: Sequence[Array]) -> tuple[Tables, Array]:
        """Return the tables that arrays travel in, and their memory."""
        length = self._bucket_bytes // np.dtype(dtype).itemsize
        tables = Tables([array.size for array in arrays], length, self.link.size)
        return tables, self._total(dtype, tables.columns * self.link.size)

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

    def _sum(self, part: Array, kind: int, factor: int) -> None:
        """Add up a bucket in place: each rank its share, which then goes to all."""
        rows = part.reshape(self.link.size, -1)
        self._scatter(rows, rows[self.link.rank], kind, factor)
        self._gather(rows[self.link.rank], rows)

    def _scatter(self, table: Array, own: Array, kind: int, factor: int) -> None:
        """Add up this rank's row of the tables of all ranks, which consist of numbers of a kind."""
        import cupy

        stream, count = cupy.cuda.get_current_stream().ptr, own.size * factor
        self._communicator.reduceScatter(table.data.ptr, own.data.ptr, count, kind, SUM, stream)

    def _gather(self, own: Array, table: Array) -> None:
        """Write the own rows of all ranks into a table, byte by byte, which takes any dtype."""
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        self._communicator.allGather(own.data.ptr, table.data.ptr, own.nbytes, BYTE, stream)

    def _gathered(self, own: Any, counts: Any) -> Any:
        """Return the rows of all ranks, which travel as if all had as many as the one with the most."""
        import cupy

        everything = cupy.empty((self.link.size, int(counts.max()), *own.shape[1:]), own.dtype)
        everything[self.link.rank, : len(own)] = own
        if everything.nbytes:
            self._gather(everything[self.link.rank], everything)
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
