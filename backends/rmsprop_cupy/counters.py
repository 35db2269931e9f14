"""Counters that devices write to and the host looks at, in pinned memory: a look costs no copy."""

from collections.abc import Sequence
from typing import Any

import cupy
import cupyx
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.formula import Hyperparameters
from rmsprop_cupy.streams import hold


def _pinned(numbers: Sequence[int], dtype: type[np.generic]) -> tuple[Host, Array]:
    """Return numbers in pinned memory: an array of the host, and one of the current device at the same place."""
    host = cupyx.empty_pinned(len(numbers), dtype)  # pyright: ignore[reportArgumentType]
    host[:] = numbers
    device = cupy.cuda.runtime.getDevice()
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device)
    return host, cupy.ndarray(len(numbers), dtype, cupy.cuda.MemoryPointer(memory, 0))


class Tally:
    """The number of steps that devices have left out as a gradient was not finite; a `rmsprop.backends.Tally`.

    Kernels of any device add to it.

    Attributes
    ----------
    array : cupy.ndarray of uint64, shape (1,)
        What the kernels are given.
    taken : int
        How many of the steps that were left out have been told.
    """

    def __init__(self) -> None:
        self._host, self.array = _pinned([0], np.uint64)
        self.taken = 0
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
        missing, self.taken = counted - self.taken, counted
        return missing


def attempted(hyper: Hyperparameters, tally: Tally | None) -> int:
    """Return the number of a step if the devices had left out none, of which the tally knows."""
    return hyper.step + (0 if tally is None else tally.taken)


_NONE = 0, np.iinfo(np.int64).max, np.iinfo(np.int64).min


class Misses:
    """Rows that sparse gradients list, but a variable does not have, and windows that are not inside of it.

    To look at them needs no waiting: they are reported when a later step finds that the device has got there.

    Attributes
    ----------
    array : cupy.ndarray of int64, shape (6,)
        What the kernels are given: how many rows, the lowest and the highest; how many windows, the first and the
        last.
    """

    def __init__(self) -> None:
        self._host, self.array = _pinned(_NONE * 2, np.int64)
        self._written: Any = None

    def record(self) -> None:
        """Take note of a kernel that has been launched in the current stream, and may be writing."""
        self._written = cupy.cuda.Event(disable_timing=True)
        self._written.record()
        hold(self)

    def report(self, shape: tuple[int, ...]) -> None:
        """Raise ``ValueError``, once, if the last kernel is done and something has been missed of a variable."""
        if self._written is None or not self._written.done:
            return
        (rows, low, high), (windows, first, last) = self._host.reshape(2, 3).tolist()
        if not rows and not windows:
            return
        self._host[:] = _NONE * 2
        found = [f"indices must be >= 0 and < {shape[0]}; an earlier step left out {rows}, from {low} to {high}."]
        found += [
            f"windows must lie inside of {shape}; an earlier step left out {windows}, "
            f"from number {first} to {last} of its list."
        ]
        reports = [text for text, count in zip(found, (rows, windows), strict=True) if count]
        raise ValueError(" ".join([*reports, "With validate=True such a step is refused."]))
