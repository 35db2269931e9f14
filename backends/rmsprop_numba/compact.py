"""Slots in a smaller dtype, in arrays of NumPy."""

import numpy as np

from rmsprop.arrays.libraries import DType, Host
from rmsprop.variables.compact import EncodedSlot
from rmsprop_numba import block_kernels

Array = Host


class CompactSlot(EncodedSlot):
    """A slot of zeros that is kept as codes; its `array` is a copy in full, which can't be written to."""

    __slots__ = ()

    @staticmethod
    def _zeros(size: int, dtype: DType) -> Array:
        return np.zeros(size, dtype)

    def _read(self) -> Array:
        numbers: Array = np.empty(self.codes.size, self.real)
        block_kernels.read_blocks(*self.encoding, *self.blocks, numbers)
        numbers.flags.writeable = False
        return numbers

    def _write(self, reals: Array) -> None:
        block_kernels.write_blocks(reals, *self.encoding, *self.blocks)
