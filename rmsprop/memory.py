"""Which arrays share memory, told from addresses and strides alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Host = np.ndarray[Any, Any]


def overlapping(arrays: Sequence[Host]) -> tuple[int, int] | None:
    """Return the positions of two arrays that share memory, or of one twice whose own elements do."""
    bounds = [(*np.lib.array_utils.byte_bounds(array), i) for i, array in enumerate(arrays) if array.size]
    open_ones: list[tuple[int, int]] = []  # (end, position) of arrays that reach beyond the present start
    for start, stop, i in sorted(bounds):
        if _overlaps_itself(arrays[i]):
            return i, i
        open_ones = [(end, j) for end, j in open_ones if end > start]
        for _, j in open_ones:
            if np.shares_memory(arrays[i], arrays[j]):
                return j, i
        open_ones.append((stop, i))
    return None


def _overlaps_itself(array: Host) -> bool:
    """Tell whether elements may share memory, which only strides made by hand lead to."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < reach + array.itemsize:
            return True
        reach += stride * (n - 1)
    return False


def owner(array: Any) -> Any:
    """Return the object that a view was, in the end, taken from."""
    while (base := getattr(array, "base", None)) is not None:
        array = base
    return array
