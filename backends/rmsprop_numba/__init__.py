"""NumPy arrays, updated in one pass over memory by Numba kernels."""

from typing import Any

from rmsprop.arrays.memory import overlapping
from rmsprop.backends import Backend
from rmsprop.formula import SLOTS
from rmsprop_numba import step, variables

__all__ = ["NumbaBackend", "backend"]


class NumbaBackend(Backend):
    """The backend for NumPy."""

    in_place = True
    has_compact_slots = True
    takes_windows = True

    memory = staticmethod(variables.memory)
    check_variable = staticmethod(variables.check_variable)
    overlapping = staticmethod(overlapping)
    zeros = staticmethod(variables.zeros)
    in_range = staticmethod(variables.in_range)
    squared_norms = staticmethod(step.squared_norms)
    first_nonfinite = staticmethod(step.first_nonfinite)
    prepare = staticmethod(step.prepare)
    owner = staticmethod(variables.owner)
    place = staticmethod(variables.place)
    view = staticmethod(variables.view)
    address = staticmethod(variables.address)

    @staticmethod
    def compact_slot(array: Any, name: str, dtype: str, state_dtype: str, label: str) -> Any:
        """Return a slot of zeros in a smaller dtype."""
        from rmsprop_numba.compact import CompactSlot  # only for those who ask for it

        is_signed, is_complex = not SLOTS[name].averages_squares, array.dtype.kind == "c"
        return CompactSlot(array.shape, dtype, state_dtype, is_signed, label, is_complex)


backend = NumbaBackend()
