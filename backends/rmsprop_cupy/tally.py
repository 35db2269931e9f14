"""Steps that a device has left out because a gradient was not finite: counted there, read when somebody asks."""

from typing import Any

import cupy
import cupyx
import numpy as np

from rmsprop_cupy.pending import hold

Array = Any


class Tally:
    """The number of steps that devices have left out; a `rmsprop.backends.Tally`.

    It lies in pinned memory of the host, to which kernels of any device add.

    Attributes
    ----------
    array : cupy.ndarray of uint64, shape (1,)
        What the kernels are given.
    """

    def __init__(self) -> None:
        self._host = cupyx.empty_pinned(1, np.uint64)  # pyright: ignore[reportArgumentType]
        self._host[:] = 0
        device = cupy.cuda.runtime.getDevice()
        memory = cupy.cuda.UnownedMemory(self._host.ctypes.data, self._host.nbytes, self._host, device)
        self.array: Array = cupy.ndarray(1, cupy.uint64, cupy.cuda.MemoryPointer(memory, 0))
        self._taken = 0
        self._decided: dict[int, Any] = {}  # for each device, what comes after the kernel that decides
        self._replays: dict[int, Any] = {}  # for each device, the stream of the last replay

    def record(self) -> None:
        """Take note of a kernel that has been launched in the current stream, and decides on a step."""
        event = cupy.cuda.Event(disable_timing=True)
        event.record()
        self._decided[cupy.cuda.runtime.getDevice()] = event
        hold(self)

    def replayed(self) -> None:
        """Take note that captured steps are about to be replayed in the current stream."""
        self._replays[cupy.cuda.runtime.getDevice()] = cupy.cuda.get_current_stream()

    def take(self) -> int:
        """Wait until all steps are decided; return how many have been left out since the last time."""
        while self._decided:
            self._decided.popitem()[1].synchronize()
        while self._replays:
            device, stream = self._replays.popitem()
            with cupy.cuda.Device(device):
                stream.synchronize()
        counted = int(self._host[0])  # once, as another thread's step may be counted any time
        missing, self._taken = counted - self._taken, counted
        return missing
