"""Slots in a smaller dtype, which are read and set as arrays in full: what they are in every library.

How a number becomes a code is told in ``rmsprop_numba/codes.py``. The codes, their scales, and which way numbers
are rounded are the same wherever an array lies, so that files can go from one library to another.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, DType, on_device, own
from rmsprop.variables.variable import Variable

LENGTH = 1_024
"""Reals of a block at most: few enough for them to stay in the fastest memory from decoding to encoding."""

SHORTEST = 64
"""Elements of a row from which on a row has blocks of its own."""

COUNT = 3
"""How many slots of a variable can be compact, which rounding is to treat differently."""

LEAST = {"bfloat16": 1 + 2.0**-6, "uint8": 1 + 2.0**-3}
"""How much larger than the square of the mean the mean of squares is, at least, for all that rounding tells."""


def displacement(number: int) -> int:
    """Return 32 bits that are different for each number, as if by chance: the hash of SplitMix64 (Steele 2014)."""
    bits = (number + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return bits >> 32 ^ bits >> 63


def dithers(step: int) -> tuple[list[int], int]:
    """Return the dithers of the first code of each slot in a step, and what each further code has more."""
    return [displacement(COUNT * step + i) for i in range(COUNT)], displacement(-2 - step) | 1


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

    def times(self, reals: int) -> "Blocks":
        """Return the same division in reals, of which an element has so many."""
        return Blocks(self.row * reals, self.length * reals)


def blocks_of(shape: tuple[int, ...], state_dtype: str, longest: int = LENGTH) -> Blocks:
    """Return the division of an array with slots of a dtype, in blocks of at most so many elements.

    The rows of a table have blocks, and so scales, of their own where that does not cost more than it saves: a
    sparse gradient must not touch the others. For a dtype without scales, all elements are one row.
    """
    size, width = math.prod(shape), math.prod(shape[1:])
    row = width if state_dtype == "uint8" and len(shape) > 1 and width >= SHORTEST else size
    even = -(-row // max(1, -(-row // longest)))
    return Blocks(max(row, 1), max(1, min(row, -(-even // 16) * 16)))  # whole vectors


class EncodedSlot(Variable):
    """A slot of zeros that is kept as codes; its `array` is a copy in full, and changes of that are lost.

    Of complex numbers, real and imaginary part have a code each, next to each other. Backends derive from this.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
        Of the numbers in full, in the terms of NumPy.
    state_dtype : {"bfloat16", "uint8"}
    is_signed : bool
    name : str
    is_of_complex : bool, optional
        Whether the variable is complex, if that is more than whether the slot is.
    """

    __slots__ = ("_dtype", "_shape", "blocks", "codes", "is_signed", "reals", "scales")

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: DType,
        state_dtype: str,
        is_signed: bool,
        name: str | None,
        is_of_complex: bool | None = None,
    ) -> None:
        self.name, self.trainable, self.constraint = name or "Variable", False, None
        self._shape, self._dtype, self.is_signed = shape, np.dtype(dtype), is_signed
        self.reals = 2 if self._dtype.kind == "c" else 1
        most = LENGTH if (self.reals == 1 if is_of_complex is None else not is_of_complex) else LENGTH // 2
        blocks, size = blocks_of(shape, state_dtype, most), math.prod(shape)
        self.blocks = blocks.times(self.reals)
        count = size // blocks.row * blocks.per_row
        kind = np.int16 if state_dtype == "bfloat16" else np.int8 if is_signed else np.uint8
        self.codes: Array = self._zeros(size * self.reals, kind)
        self.scales: Array = self._zeros(count if state_dtype == "uint8" else 0, self.real)

    def __reduce__(self) -> Any:
        names = ("_dtype", "_shape", "blocks", "codes", "is_signed", "name", "reals", "scales")
        return _restored, (type(self), {name: getattr(self, name) for name in names})

    @staticmethod
    def _zeros(size: int, dtype: DType) -> Array:
        """Return zeros of the library."""
        raise NotImplementedError

    def _read(self) -> Array:
        """Return the numbers, as reals with one axis."""
        raise NotImplementedError

    def _write(self, reals: Array) -> None:
        """Replace the numbers, given as `_read` returns them, each by the nearest that has a code."""
        raise NotImplementedError

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
    def real(self) -> Any:
        """Dtype of the real parts of numbers, and of scales."""
        return np.dtype(dtypes.real(self._dtype.name))

    @property
    def state_dtype(self) -> str:
        """What the numbers are kept in."""
        return "bfloat16" if self.codes.dtype == np.int16 else "uint8"

    @property
    def encoding(self) -> tuple[Array, Array | None]:
        """The codes and their scales as kernels take them, which is None if the dtype has none."""
        return self.codes, self.scales if self.state_dtype == "uint8" else None

    @property
    def array(self) -> Array:
        """A copy in full, in C order: use `assign` to change the numbers."""
        with on_device(self.codes):
            return self._read().view(self._dtype).reshape(self._shape)

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
        with on_device(self.codes):
            like = self._zeros(1, self._dtype).reshape(())
            whole = Variable.around(np.broadcast_to(like, self._shape), self.name)._converted(value)
            self._write(whole.flatten().view(self.real))
        return self


def shared_scales_error(variable: object, width: int) -> TypeError:
    """Return the error for a sparse gradient of rows that share their scales with others."""
    return TypeError(
        f"Gradient of variable {variable}: with state_dtype='uint8', a row of fewer than {SHORTEST} elements "
        f"can't be updated alone, since rows share the scales of their slots. Expected a dense gradient or "
        f"state_dtype='bfloat16'; given IndexedSlices or Windows for rows of {width}."
    )


def _has_negative(codes: Array) -> bool:
    """Tell whether one of the codes stands for a negative number, if its scale does not."""
    if codes.dtype == np.int16:  # bfloat16, of which the lowest code is -0.0, and those from -127 to -1 are NaN
        return bool(((codes > -(2**15)) & (codes < -127)).any())
    return bool((codes < 0).any())


def _restored(kind: type[EncodedSlot], attributes: dict[str, Any]) -> EncodedSlot:
    slot = kind.__new__(kind)
    slot.trainable, slot.constraint = False, None
    for name, value in attributes.items():
        setattr(slot, name, own(value) if name in ("codes", "scales") else value)
    return slot
