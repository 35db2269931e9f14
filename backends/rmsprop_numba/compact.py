"""Slots in a smaller dtype, which are read and set as arrays in full."""

import math
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import DType, Host, own
from rmsprop.variables.variable import Variable
from rmsprop_numba import block_kernels
from rmsprop_numba.block_kernels import LENGTH

Array = Host

SHORTEST = 64
"""Elements of a row from which on a row has blocks of its own."""


class Blocks(NamedTuple):
    """How the elements of an array, in C order, are divided into blocks.

    Parameters
    ----------
    row : int
        Elements that blocks do not cross the ends of.
    length : int
        Elements of a block, but of the last one in each row.
    """

    row: int
    length: int

    @property
    def per_row(self) -> int:
        """Blocks of a row."""
        return -(-self.row // self.length)


def blocks_of(shape: tuple[int, ...], state_dtype: str) -> Blocks:
    """Return the division of an array with slots of a dtype.

    The rows of a table have blocks, and so scales, of their own where that does not cost more than it saves: a
    sparse gradient must not touch the others. For a dtype without scales, all elements are one row.
    """
    size, width = math.prod(shape), math.prod(shape[1:])
    row = width if state_dtype == "uint8" and len(shape) > 1 and width >= SHORTEST else size
    even = -(-row // max(1, -(-row // LENGTH)))
    return Blocks(max(row, 1), max(1, min(row, -(-even // 16) * 16)))  # whole vectors


class CompactSlot(Variable):
    """A slot of zeros that is kept as codes; its `array` is a copy in full, which can't be written to.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
        Of the numbers in full.
    state_dtype : {"bfloat16", "uint8"}
    is_signed : bool
    name : str
    """

    __slots__ = ("_dtype", "_shape", "blocks", "codes", "is_signed", "scales")

    def __init__(
        self, shape: tuple[int, ...], dtype: DType, state_dtype: str, is_signed: bool, name: str | None
    ) -> None:
        self.name, self.trainable, self.constraint = name or "Variable", False, None
        self._shape, self._dtype, self.is_signed = shape, np.dtype(dtype), is_signed
        self.blocks = blocks_of(shape, state_dtype)
        size = math.prod(shape)
        count = size // self.blocks.row * self.blocks.per_row
        kind = np.int16 if state_dtype == "bfloat16" else np.int8 if is_signed else np.uint8
        self.codes: Array = np.zeros(size, kind)
        self.scales: Array = np.zeros(count if state_dtype == "uint8" else 0, self._dtype)

    def __reduce__(self) -> Any:
        return _restored, (self._shape, self._dtype, self.is_signed, self.codes, self.scales, self.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._shape

    @property
    def dtype(self) -> Any:
        """Dtype of the array."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def encoding(self) -> tuple[Array, Array | None]:
        """The codes and their scales as kernels take them, which is None if the dtype has none."""
        return self.codes, None if self.codes.dtype == np.int16 else self.scales

    @property
    def array(self) -> Array:
        """A copy in full, in C order, which can't be written to: use `assign`."""
        numbers = np.empty(self.codes.size, self._dtype)
        block_kernels.read_blocks(*self.encoding, self.blocks.row, self.blocks.length, numbers)
        numbers = numbers.reshape(self._shape)
        numbers.flags.writeable = False
        return numbers

    @property
    def parts(self) -> dict[str, Array]:
        """What the slot is kept in: its codes and, if it has any, the scales of its blocks."""
        return {"codes": self.codes, "scales": self.scales}

    @parts.setter
    def parts(self, parts: dict[str, Array]) -> None:
        codes, scales = parts["codes"], parts["scales"]
        if (scales < 0).any() or (not self.is_signed and _has_negative(codes)):
            raise ValueError(f"{self.name} has negative numbers where there can't be any.")
        self.codes, self.scales = codes, scales

    def assign(self, value: Any) -> Variable:
        """Replace the numbers, each by the nearest that has a code; see `Variable.assign`."""
        like = np.broadcast_to(np.zeros((), self._dtype), self._shape)
        numbers = np.ascontiguousarray(Variable.around(like, self.name)._converted(value)).reshape(-1)
        block_kernels.write_blocks(numbers, *self.encoding, self.blocks.row, self.blocks.length)
        return self


def _has_negative(codes: Array) -> bool:
    """Tell whether one of the codes stands for a negative number, if its scale does not."""
    if codes.dtype == np.int16:  # bfloat16, of which the lowest code is -0.0, and those from -127 to -1 are NaN
        return bool(((codes > -(2**15)) & (codes < -127)).any())
    return bool((codes < 0).any())


def _restored(
    shape: tuple[int, ...], dtype: DType, is_signed: bool, codes: Array, scales: Array, name: str
) -> CompactSlot:
    slot = CompactSlot(shape, dtype, "bfloat16" if codes.dtype == np.int16 else "uint8", is_signed, name)
    slot.codes, slot.scales = own(codes), own(scales)
    return slot
