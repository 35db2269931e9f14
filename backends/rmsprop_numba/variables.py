"""NumPy arrays as variables: their place in memory, and whether they can be updated there."""

from collections.abc import Hashable

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.arrays.memory import Place, root, strides_of

Array = Host


def memory(array: Array) -> Hashable:
    """Return what two views of the same elements have in common."""
    return address(array), array.shape, strides_of(array), array.dtype.str


def address(array: Array) -> int:
    """Return the address of an array's first element."""
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def owner(array: Array, is_its_own: bool) -> Array | None:
    """Return the array that all have to hold who can reach the memory; None if others may share it, as in buffers.

    With `is_its_own`, the memory is known to have no other use, whoever allocated it.
    """
    last = root(array)
    return last if is_its_own or last.flags.owndata else None


def place(array: Array, owner: Array) -> Place:
    """Return where a view lies in an array."""
    return Place(address(array) - address(owner), array.shape, array.strides, array.dtype)


def view(owner: Array, place: Place) -> Array:
    """Return the view of an array that lies at a place in it."""
    return np.asarray(_Interface(owner, place)).view(place.dtype)


class _Interface:
    """The address of a view, in the form that NumPy understands, and what keeps it alive."""

    def __init__(self, owner: Array, place: Place) -> None:
        self.base = owner
        self.__array_interface__ = {
            "data": (address(owner) + place.offset, False),
            "shape": place.shape,
            "strides": place.strides,
            "typestr": f"|V{place.dtype.itemsize}",
            "version": 3,
        }


def check_variable(array: Array) -> None:
    """Raise ``TypeError`` or ``ValueError`` if an array can't be updated in place."""
    kind = type(array)
    if kind is not np.ndarray and kind is not np.memmap:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__} can't be updated: its mask, unit or other meaning would be lost. "
            f"Expected a plain numpy.ndarray."
        )
    if not array.flags.writeable:
        raise ValueError("the array is read-only; expected one that can be written to.")
    if not array.dtype.isnative:
        raise TypeError(f"the array has byte order {array.dtype.str!r}; expected this machine's own.")


def zeros(like: Array, dtype: str) -> Array:
    """Return zeros with the shape and order of axes of an array, without gaps."""
    return np.zeros_like(like, dtype=dtype, order="K", subok=False)


def in_range(indices: Array, rows: int) -> bool:
    """Tell whether all indices are those of rows."""
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < rows)
