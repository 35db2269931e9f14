"""Variables in memory: where they and their slots lie, and whether they can be updated there."""

from collections.abc import Hashable, Sequence
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays import memory as addresses
from rmsprop.arrays.libraries import Array, Host
from rmsprop.arrays.memory import Place
from rmsprop.backends import Updatable


def memory(array: Array) -> Hashable:
    """Return what two views of the same elements have in common; CuPy gives all empty arrays one address."""
    place = array.data.ptr or id(addresses.owner(array))
    return place, array.shape, addresses.strides_of(array), array.dtype.str, array.device.id


ROUNDING = 512
"""Bytes to which a pool rounds up what it hands out."""


def owner(array: Array, is_its_own: bool) -> Array | None:
    """Return the array that all have to hold who can reach the memory; None if others may share it.

    An array that was put around memory does not tell so. It has all of it only by chance.
    """
    root = array if array.base is None else array.base
    memory = root.data.mem
    is_whole = root.data.ptr == memory.ptr and 0 <= memory.size - root.nbytes < ROUNDING
    return root if is_its_own or (is_whole and not isinstance(memory, cupy.cuda.UnownedMemory)) else None


def place(array: Array, owner: Array) -> Place:
    """Return where a view lies in an array."""
    return Place(array.data.ptr - owner.data.ptr, array.shape, array.strides, array.dtype)


def view(owner: Array, place: Place) -> Array:
    """Return the view of an array that lies at a place in it; it does not keep the array itself alive."""
    with owner.device:
        return cupy.ndarray(place.shape, place.dtype, owner.data + place.offset, place.strides)


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


def _twin(array: Array) -> Host:
    """Return a NumPy array at the same addresses, which must not be read."""
    return np.asarray(_Interface(array)) if array.size else np.empty(array.shape)


def _arrays(variable: Any) -> list[Array]:
    """Return the arrays that a variable, or a slot in a smaller dtype, is kept in."""
    parts = getattr(variable, "parts", None)
    return [variable.array] if parts is None else list(parts.values())


class Occupied:
    """The memory of variables and all of their slots.

    It keeps this from being used for anything else, but not the arrays alive, so that they tell who holds them.

    Attributes
    ----------
    memory : list of cupy.cuda.MemoryPointer
    count : int
        How many variables and slots these are.
    """

    def __init__(self, parameters: Sequence[Updatable]) -> None:
        arrays = [a for p in parameters for v in (p.variable, *p.slots.values()) for a in _arrays(v)]
        self.memory = [array.data for array in arrays]
        self.count = sum([1 + len(p.slots) for p in parameters])
        pairs = np.array(sorted(bounds(a) for a in arrays), np.uint64).reshape(-1, 2)
        self._starts = np.ascontiguousarray(pairs[:, 0])
        self._ends = np.concatenate([np.zeros(1, np.uint64), np.maximum.accumulate(pairs[:, 1])])

    def overlap(self, arrays: Sequence[Array]) -> Sequence[bool]:
        """Tell for each array whether its memory may be a part of this."""
        pairs = np.array([bounds(a) for a in arrays], np.uint64).reshape(-1, 2)
        return self.touched(pairs[:, 0], pairs[:, 1]).tolist()  # type: ignore[no-any-return]

    def spans(self) -> list[tuple[int, int]]:
        """Return stretches that are this together, by their first address and that after the last."""
        return list(zip(self._starts.tolist(), self._ends[1:].tolist(), strict=True))

    def touched(self, starts: Host, stops: Host) -> Host:
        """Tell for stretches between addresses whether this may have a part of them."""
        before = self._starts.searchsorted(stops)  # how many begin before each one ends
        return self._ends[before] > starts
