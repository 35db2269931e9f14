"""A program for `mpiexec`: replicas with CuPy arrays, over MPI, and NCCL or, without it, a recording stand-in.

After ``shares`` as an argument, with sharded state, over NCCL only.
"""

import sys
import warnings

import cupy
import numpy as np
import pytest
from mpi4py import MPI

from rmsprop import IndexedSlices, RMSprop, Windows
from rmsprop.distribute import MPIStrategy, NCCLStrategy, ReplicaError

ITEMS = {1: np.uint8, 7: np.float32, 8: np.float64}

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that the library is missing
    from cupy.cuda import nccl


class Recording:
    """What NCCL does, by MPI, and a record of the calls."""

    available = True
    calls: list = []  # noqa: RUF012

    @staticmethod
    def get_unique_id():
        return tuple(range(128))

    class NcclCommunicator:
        def __init__(self, size, unique, rank):
            assert (size, unique, rank) == (MPI.COMM_WORLD.size, tuple(range(128)), MPI.COMM_WORLD.rank)
            self.comm, self.rank, self.size, self.fails = MPI.COMM_WORLD.Dup(), rank, size, False

        def _array(self, pointer, count, kind):
            memory = cupy.cuda.UnownedMemory(pointer, count * np.dtype(ITEMS[kind]).itemsize, self)
            return cupy.ndarray((count,), ITEMS[kind], cupy.cuda.MemoryPointer(memory, 0))

        def reduceScatter(self, send, receive, count, kind, operation, stream):
            Recording.calls.append(("reduceScatter", count, kind, stream))
            assert operation == 0
            parts = self.comm.alltoall(np.split(self._array(send, count * self.size, kind).get(), self.size))
            self._array(receive, count, kind).set(sum(parts[1:], parts[0]))

        def allGather(self, send, receive, count, kind, stream):
            Recording.calls.append(("allGather", count, kind, stream))
            everything = np.concatenate(self.comm.allgather(self._array(send, count, kind).get()))
            self._array(receive, count * self.size, kind).set(everything)

        def check_async_error(self):
            if self.fails:
                raise RuntimeError("unhandled system error")

        def abort(self):
            Recording.calls.append(("abort",))


def train(strategy, own, steps=5):
    """Train CuPy variables with a strategy, and NumPy ones alone; compare them."""
    n = MPI.COMM_WORLD.size
    v = cupy.asarray(np.arange(10.0) + strategy.rank)
    z, h, t = cupy.ones((3, 2), cupy.complex64), cupy.ones(5, cupy.float16), cupy.ones((20, 3), cupy.float32)
    image = cupy.ones((8, 9), cupy.float32)
    hosts = [np.arange(10.0), *[array.get() for array in (z, h, t, image)]]
    with strategy.scope():
        opt = RMSprop(0.01, momentum=0.9, global_clipnorm=2.0)
    alone = RMSprop(0.01, momentum=0.9, global_clipnorm=2.0)

    def gradients(rank, k):
        rng = np.random.default_rng([rank, k])
        dense = rng.standard_normal(10), rng.standard_normal((3, 2)) * np.complex64(1j), rng.standard_normal(5)
        rows = rng.integers(0, 20, rank + k)
        types = np.float64, np.complex64, np.float32
        ones = np.ones((len(rows), 3), np.float32)
        return [d.astype(t) for d, t in zip(dense, types, strict=True)], ones, rows, rows[:, None] % [[6, 8]]

    for k in range(steps):
        dense, values, rows, starts = gradients(strategy.rank, k)
        sparse = IndexedSlices(cupy.asarray(values), cupy.asarray(rows))
        places = cupy.asarray(starts) if strategy.rank else starts  # which may differ between ranks
        seen = Windows(cupy.asarray(values[..., None]), places)
        given = [*zip(map(cupy.asarray, dense), (v, z, h), strict=True), (sparse, t), (seen, image)]
        strategy.run(opt.apply_gradients, args=(given,))
        everyone = [gradients(rank, k) for rank in range(n)]
        sums = [sum(g[0][i] for g in everyone) for i in range(3)]
        rows = IndexedSlices(np.concatenate([g[1] for g in everyone]), np.concatenate([g[2] for g in everyone]))
        seen = Windows(
            np.concatenate([g[1][..., None] for g in everyone]), np.concatenate([g[3] for g in everyone])
        )
        alone.apply_gradients(zip([*sums, rows, seen], hosts, strict=True))
    strategy.check_synced([v, z, h, t, image])
    for array, host in zip((v, z, h, t, image), hosts, strict=True):
        np.testing.assert_allclose(array.get(), host, rtol=1e-3 if host.dtype == np.float16 else 1e-5)
    return v, opt


def train_shares(strategy, steps=3):
    """Train arrays of CuPy and of NumPy with sharded state, and NumPy ones alone; compare them."""
    n, rng = MPI.COMM_WORLD.size, np.random.default_rng(strategy.rank)
    a, h, b = cupy.asfortranarray(cupy.asarray(rng.standard_normal((5, 7)))), cupy.ones(11), np.ones(6)
    hosts = [np.random.default_rng(0).standard_normal((5, 7)), np.ones(11), np.ones(6)]
    with strategy.scope():
        opt = RMSprop(0.01, momentum=0.9)
    alone = RMSprop(0.01, momentum=0.9)

    def gradients(rank, k):
        rng = np.random.default_rng([rank, k])
        return [rng.standard_normal(host.shape) for host in hosts]

    for k in range(steps):
        one, two, three = gradients(strategy.rank, k)
        pairs = [(cupy.asarray(one), a), (cupy.asarray(two), h), (three, b)]
        strategy.run(opt.apply_gradients, args=(pairs,))
        sums = [sum(parts) for parts in zip(*[gradients(rank, k) for rank in range(n)], strict=True)]
        alone.apply_gradients(zip(sums, hosts, strict=True))
    strategy.check_synced([a, h, b])
    for array, host in zip((a.get(), h.get(), b), hosts, strict=True):
        np.testing.assert_allclose(array, host, rtol=1e-9)
    for mine, whole in zip(opt.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(mine, whole, rtol=1e-9, atol=1e-12)
    for slot in opt.weights[1:]:
        assert slot.own.size <= -(-slot.size // n)


def main(kind=""):
    is_real = nccl.available and cupy.cuda.runtime.getDeviceCount() >= MPI.COMM_WORLD.size
    if not is_real:
        import rmsprop.distribute.nccl as module

        module._nccl = lambda: Recording
    if kind == "shares":
        train_shares(NCCLStrategy(timeout=60, bucket_bytes=64, shard_state=True))
        print(f"rank {MPI.COMM_WORLD.rank}: as on the host", flush=True)
        return
    train(MPIStrategy(timeout=60, bucket_bytes=64), MPI.COMM_WORLD)
    if "gpusim" in sys.modules:  # whose devices have memory that any MPI can read
        train(MPIStrategy(timeout=60, bucket_bytes=64, cuda_aware=True), MPI.COMM_WORLD)
    strategy = NCCLStrategy(timeout=60, bucket_bytes=64)
    v, opt = train(strategy, MPI.COMM_WORLD)
    if is_real:
        print("NCCL is there", flush=True)
    else:
        names = [call[0] for call in Recording.calls]
        assert names.count("reduceScatter") > 5 * 2  # several buckets in each step
        assert {call[3] for call in Recording.calls} == {cupy.cuda.get_current_stream().ptr}
        strategy.ranks.reduction._communicator.fails = strategy.rank == 1
        before = v.get()
        with pytest.raises((RuntimeError, ReplicaError), match="unhandled system error"):
            opt.apply_gradients([(v, v)])
        assert (v.get() == before).all()
        print(f"rank {strategy.rank}: the error was seen", flush=True)
        assert Recording.calls[-1] == ("abort",)
    print(f"rank {strategy.rank}: as on the host", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
