"""NumPy arrays, updated in one pass over memory by Numba kernels."""

from typing import Any

from rmsprop.formula import SLOTS
from rmsprop.memory import overlapping
from rmsprop.variable import Variable
from rmsprop_numba.step import first_nonfinite, prepare, squared_norms
from rmsprop_numba.variables import address, check_variable, in_range, memory, owner, place, view, zeros

__all__ = [
    "address",
    "check_variable",
    "compact_slot",
    "first_nonfinite",
    "in_place",
    "in_range",
    "memory",
    "overlapping",
    "owner",
    "place",
    "prepare",
    "squared_norms",
    "view",
    "zeros",
]

in_place = True


def compact_slot(array: Any, name: str, state_dtype: str, label: str) -> Variable:
    """Return a slot of zeros in a smaller dtype; see `rmsprop.backends.Backend`."""
    from rmsprop_numba.compact import CompactSlot  # only for those who ask for it

    return CompactSlot(array.shape, array.dtype, state_dtype, not SLOTS[name].averages_squares, label)
