"""NumPy arrays, updated in one pass over memory by Numba kernels."""

from rmsprop.memory import overlapping
from rmsprop_numba.step import squared_norms, update
from rmsprop_numba.variables import check_variable, in_range, memory, zeros

__all__ = ["check_variable", "in_range", "memory", "overlapping", "squared_norms", "update", "zeros"]
