"""NumPy arrays, updated in one pass over memory by Numba kernels."""

from rmsprop_numba.variables import check_variable, in_range, memory, overlapping, zeros
from rmsprop_numba.step import squared_norms, update

__all__ = ["check_variable", "in_range", "memory", "overlapping", "squared_norms", "update", "zeros"]
