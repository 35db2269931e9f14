"""Threads that are ranks with a GPU each, and a stand-in for NCCL among them that computes and records."""

import threading
from contextlib import contextmanager

import cupy
import numpy as np

from rmsprop.distribute import ReplicaError, Strategy
from rmsprop.distribute.agreement import disagreement
from rmsprop.distribute.link import Link
from rmsprop.distribute.nccl import DeviceReduction
from rmsprop.distribute.ranks import Ranks

ITEMS = {1: np.uint8, 7: np.float32, 8: np.float64}


class World:
    """Threads that are ranks; one runs at a time, and it hands over where it waits for the others."""

    def __init__(self, size):
        self.size, self._given, self._baton = size, [None] * size, threading.Lock()
        self._barrier = threading.Barrier(size)

    def all(self, rank, value):
        """Return what all ranks give."""
        self._given[rank] = value
        self._wait()
        values = list(self._given)
        self._wait()
        return values

    def _wait(self):
        self._baton.release()
        try:
            self._barrier.wait(60)
        finally:
            self._baton.acquire()

    def give_up(self):
        self._barrier.abort()

    def run(self, function):
        """Call a function as each rank, with a device; return the results, or raise the first error."""
        results, errors = [None] * self.size, []

        def go(rank):
            with self._baton:
                try:
                    with cupy.cuda.Device(rank % cupy.cuda.runtime.getDeviceCount()):
                        results[rank] = function(rank)
                        cupy.cuda.Device().synchronize()
                except BaseException as error:
                    errors.append(error)
                    self.give_up()

        threads = [threading.Thread(target=go, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]  # others that wait for that rank come later
        return results


class ThreadLink(Link):
    """What a `Link` does by MPI, among threads."""

    def __init__(self, world, rank):
        self.world, self.rank, self.size = world, rank, world.size
        self.others = [other for other in range(self.size) if other != rank]

    is_broken = False

    def agree(self, statement):
        message = disagreement(self.world.all(self.rank, statement))
        if message is not None:
            raise ReplicaError(message)

    @contextmanager
    def certain(self, doing):
        try:
            yield
        except BaseException as error:
            if not isinstance(error, ReplicaError) and not getattr(error, "_is_announced", False):
                self.world.give_up()
                error._is_announced = True
            raise

    def gather(self, own, counts, doing):
        everything = np.concatenate(self.world.all(self.rank, own.copy()))
        assert len(everything) == sum(counts)
        return everything

    def gathered(self, own, doing):
        return np.stack(self.world.all(self.rank, own.copy()))

    def wait(self, requests, doing):
        for request in requests:
            while not request.Test():
                pass


class ThreadCommunicator:
    """What NCCL does, with sums in the order of the ranks, and a record of the calls."""

    def __init__(self, world, rank):
        self.world, self.rank, self.size, self.calls, self.fails_at = world, rank, world.size, [], None

    def _array(self, pointer, count, kind):
        memory = cupy.cuda.UnownedMemory(pointer, count * np.dtype(ITEMS[kind]).itemsize, self)
        return cupy.ndarray((count,), ITEMS[kind], cupy.cuda.MemoryPointer(memory, 0))

    def _record(self, name, count, kind, stream):
        assert stream == cupy.cuda.get_current_stream().ptr
        self.calls.append((name, count, kind))
        if name == self.fails_at:
            raise RuntimeError("unhandled system error")

    def reduceScatter(self, send, receive, count, kind, operation, stream):
        self._record("reduceScatter", count, kind, stream)
        assert operation == 0
        everywhere = self.world.all(self.rank, self._array(send, count * self.size, kind).get())
        parts = [given[self.rank * count : (self.rank + 1) * count] for given in everywhere]
        with np.errstate(all="ignore"):
            self._array(receive, count, kind).set(sum(parts[1:], parts[0]))

    def allGather(self, send, receive, count, kind, stream):
        self._record("allGather", count, kind, stream)
        everything = np.concatenate(self.world.all(self.rank, self._array(send, count, kind).get()))
        self._array(receive, count * self.size, kind).set(everything)

    def check_async_error(self):
        """Find none."""

    def abort(self):
        self.calls.append(("abort",))


class Threaded(Strategy):
    """A strategy of threads, but for the connection as `NCCLStrategy` makes it."""

    def __init__(self, world, rank, shard_state, bucket_bytes=256):
        self.communicator = ThreadCommunicator(world, rank)
        link = ThreadLink(world, rank)
        self.shard_state = shard_state
        self.ranks = Ranks(link, DeviceReduction(link, self.communicator, bucket_bytes))
