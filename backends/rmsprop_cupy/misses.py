"""Rows that sparse gradients list, but that do not exist: noted by the device, reported when it has got there."""

from typing import Any

import cupy
import cupyx
import numpy as np

from rmsprop_cupy.pending import hold

Array = Any

_NONE = 0, np.iinfo(np.int64).max, np.iinfo(np.int64).min


class Misses:
    """Number, lowest and highest of the rows that a variable does not have.

    They lie in pinned memory of the host, which kernels write to directly: to look at it costs no copy, and
    needs no waiting.

    Attributes
    ----------
    array : cupy.ndarray of int64, shape (3,)
        What the kernels are given.
    """

    def __init__(self) -> None:
        self._host = cupyx.empty_pinned(3, np.int64)  # pyright: ignore[reportArgumentType]
        self._host[:] = _NONE
        device = cupy.cuda.runtime.getDevice()
        memory = cupy.cuda.UnownedMemory(self._host.ctypes.data, self._host.nbytes, self._host, device)
        self.array: Array = cupy.ndarray(3, cupy.int64, cupy.cuda.MemoryPointer(memory, 0))
        self._written: Any = None

    def record(self) -> None:
        """Take note of a kernel that has been launched in the current stream, and may be writing."""
        self._written = cupy.cuda.Event(disable_timing=True)
        self._written.record()
        hold(self)

    def report(self, height: int) -> None:
        """Raise ``ValueError``, once, if the last kernel is done and rows have been missed."""
        if self._written is None or not self._written.done:
            return
        count, low, high = self._host.tolist()
        if count:
            self._host[:] = _NONE
            raise ValueError(
                f"indices must be >= 0 and < {height}; an earlier step left out {count}, from {low} to {high}. "
                f"With validate=True such a step is refused."
            )
