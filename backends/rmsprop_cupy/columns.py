"""Numbers that the host writes for a kernel to read, without either waiting for the other."""

from typing import Any

import cupy
import cupyx
import numpy as np

from rmsprop_cupy.pending import hold

Host = np.ndarray[Any, Any]


class Column:
    """An array of uint64 on the current device, written by asynchronous copies and only if it has changed.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self.array = cupy.empty(size, cupy.uint64)
        self._last: Host | None = None

    def write(self, numbers: Host) -> Any:
        """Bring numbers to the device, in the current stream; return the array there."""
        if self._last is None or not np.array_equal(numbers, self._last):
            pinned = cupyx.empty_pinned(self.array.shape, np.uint64)  # pyright: ignore[reportArgumentType]
            pinned[:] = numbers
            self.array.data.copy_from_host_async(pinned.ctypes.data, pinned.nbytes)
            self._last = numbers
            hold(pinned)
        return self.array
