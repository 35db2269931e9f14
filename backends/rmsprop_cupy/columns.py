"""Numbers that the host writes for a kernel to read, without either waiting for the other."""

from typing import Any

import cupy
import cupyx
import numpy as np

Host = np.ndarray[Any, Any]


class Column:
    """An array of uint64 on the device, written by asynchronous copies and only if it has changed.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self.array = cupy.empty(size, cupy.uint64)
        self._last: Host | None = None
        self._buffers: list[tuple[Any, Any]] = []  # pinned memory, and the event after which it is free

    def write(self, numbers: Host) -> Any:
        """Bring numbers to the device, in the current stream; return the array there."""
        if self._last is None or not np.array_equal(numbers, self._last):
            buffer, event = self._free_buffer()
            buffer[:] = self._last = numbers
            self.array.data.copy_from_host_async(buffer.ctypes.data, buffer.nbytes)
            event.record()
        return self.array

    def _free_buffer(self) -> tuple[Any, Any]:
        """Return pinned memory that no copy still reads."""
        for buffer, event in self._buffers:
            if event.done:
                return buffer, event
        pinned = cupyx.empty_pinned(self.array.shape, np.uint64)  # pyright: ignore[reportArgumentType]
        self._buffers.append((pinned, cupy.cuda.Event(disable_timing=True)))
        return self._buffers[-1]
