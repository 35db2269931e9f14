"""CuPy arrays, updated in one asynchronous launch by fused kernels."""

from rmsprop_cupy.norms import factors, first_nonfinite, squared_norms
from rmsprop_cupy.rows import report_misses
from rmsprop_cupy.step import check_step, prepare
from rmsprop_cupy.variables import check_variable, in_range, memory, overlapping, owner, place, view, zeros

__all__ = [
    "check_step",
    "check_variable",
    "factors",
    "first_nonfinite",
    "in_place",
    "in_range",
    "memory",
    "overlapping",
    "owner",
    "place",
    "prepare",
    "report_misses",
    "squared_norms",
    "view",
    "zeros",
]

in_place = True
