"""Where CuPy arrays lie in memory, and whether they can be updated there."""

from collections.abc import Hashable, Sequence
from typing import Any

import cupy
import numpy as np

from rmsprop import memory as addresses

Array = Any


def memory(array: Array) -> Hashable:
    """Return what two views of the same elements have in common; CuPy gives all empty arrays one address."""
    place = array.data.ptr or id(addresses.owner(array))
    return place, array.shape, array.strides, array.dtype.str, array.device.id


def check_variable(array: Array) -> None:
    """Raise ``TypeError`` if an array is not a plain one."""
    if type(array) is not cupy.ndarray:
        raise TypeError(f"{type(array).__name__} can't be updated; expected a plain cupy.ndarray.")


def zeros(like: Array, dtype: str) -> Array:
    """Return zeros with the shape, order of axes and device of an array, without gaps."""
    with like.device:
        return cupy.zeros_like(like, dtype=dtype, order="K")


def in_range(indices: Array, rows: int) -> bool:
    """Tell whether all indices are those of rows; this waits for the device."""
    with indices.device:
        return bool(((indices >= 0) & (indices < rows)).all())


def overlapping(arrays: Sequence[Array]) -> tuple[int, int] | None:
    """Return the positions of two arrays that share memory, or of one twice whose own elements do."""
    return addresses.overlapping([_twin(array) for array in arrays])


def bounds(array: Array) -> tuple[int, int]:
    """Return the addresses of the first byte of an array and of that after the last."""
    start: int = array.data.ptr
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    return np.lib.array_utils.byte_bounds(_twin(array)) if array.size else (start, start)


class _Interface:
    """The address of an array, in the form that NumPy understands."""

    def __init__(self, array: Array) -> None:
        self.__array_interface__ = {
            "data": (array.data.ptr, False),
            "shape": array.shape,
            "strides": array.strides,
            "typestr": f"|V{array.itemsize}",
            "version": 3,
        }


def _twin(array: Array) -> np.ndarray[Any, Any]:
    """Return a NumPy array at the same addresses, which must not be read."""
    return np.asarray(_Interface(array)) if array.size else np.empty(array.shape)
