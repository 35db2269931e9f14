"""Slots in a smaller dtype, in arrays of CuPy."""

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, DType
from rmsprop.variables.compact import EncodedSlot
from rmsprop_cupy import compact_kernels


class CompactSlot(EncodedSlot):
    """A slot of zeros that is kept as codes, on the device that is the current one when it is made."""

    __slots__ = ()

    @staticmethod
    def _zeros(size: int, dtype: DType) -> Array:
        return cupy.zeros(size, dtype)

    def _read(self) -> Array:
        numbers = cupy.empty(self.codes.size, self.real)
        kernel = compact_kernels.read_kernel(self.codes.dtype.name, self.real.name)
        if numbers.size:
            kernel(self.codes, self.scales, *self.blocks, self.blocks.per_row, numbers)
        return numbers

    def _write(self, reals: Array) -> None:
        blocks = reals.size // self.blocks.row * self.blocks.per_row
        kernel = compact_kernels.write_kernel(self.codes.dtype.name, self.real.name)
        scales = np.uint64(0) if self.state_dtype == "bfloat16" else self.scales
        if blocks:
            sizes = *self.blocks, self.blocks.per_row
            kernel((blocks,), (compact_kernels.THREADS,), (reals, self.codes, scales, *sizes))
