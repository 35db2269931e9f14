"""CuPy arrays, updated in one asynchronous launch by fused kernels."""

from typing import Any

from rmsprop.backends import Backend
from rmsprop.formula import SLOTS
from rmsprop_cupy import norms, sparse, step, variables

__all__ = ["CuPyBackend", "backend"]


class CuPyBackend(Backend):
    """The backend for CuPy."""

    in_place = True
    makes_factors = True
    has_compact_slots = True
    reports_misses = True
    takes_windows = True

    memory = staticmethod(variables.memory)
    check_variable = staticmethod(variables.check_variable)
    overlapping = staticmethod(variables.overlapping)
    zeros = staticmethod(variables.zeros)
    in_range = staticmethod(variables.in_range)
    squared_norms = staticmethod(norms.squared_norms)
    factors = staticmethod(norms.factors)
    first_nonfinite = staticmethod(norms.first_nonfinite)
    prepare = staticmethod(step.prepare)
    report_misses = staticmethod(sparse.report_misses)
    check_step = staticmethod(step.check_step)
    owner = staticmethod(variables.owner)
    place = staticmethod(variables.place)
    view = staticmethod(variables.view)

    @staticmethod
    def compact_slot(array: Any, name: str, dtype: str, state_dtype: str, label: str) -> Any:
        """Return a slot of zeros in a smaller dtype."""
        from rmsprop_cupy.compact import CompactSlot  # only for those who ask for it

        is_signed, is_complex = not SLOTS[name].averages_squares, array.dtype.kind == "c"
        with array.device:
            return CompactSlot(array.shape, dtype, state_dtype, is_signed, label, is_complex)


backend = CuPyBackend()
