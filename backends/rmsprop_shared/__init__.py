"""Arrays of libraries that share their memory, updated there by the kernels for NumPy and CuPy.

`SharedBackend` hands views of the memory of variables, slots and gradients to one of the two backends that have
kernels. An entry point of the group ``rmsprop.backends`` declares that the arrays of a library can be updated in
place and export their memory by DLPack: ``library = "rmsprop_shared:backend"``. PyTorch, which also has to be told
of changes, has `rmsprop_shared.tensors_on_host`.
"""

from rmsprop_shared.exports import backend
from rmsprop_shared.steps import SharedBackend

__all__ = ["SharedBackend", "backend"]
