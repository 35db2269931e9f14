"""The RMSprop optimizer for NumPy, CuPy and every Array API library, on fused kernels."""

from rmsprop import schedules
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.optimizer import RMSprop
from rmsprop.tape import GradientTape
from rmsprop.torch_tape import TorchTape
from rmsprop.variable import Variable

__all__ = ["GradientTape", "IndexedSlices", "RMSprop", "TorchTape", "Variable", "schedules"]
__version__ = "0.1.0"
