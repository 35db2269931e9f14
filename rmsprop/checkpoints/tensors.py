"""Arrays as a file holds them: which of its dtypes, which shape, and which bytes."""

import importlib
import math
import re
import sys
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.libraries import Host

CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "int64": "I64",
    "uint64": "U64",
    "float64": "F64",
}
"""Dtypes that files of all versions of safetensors can hold."""
PAIRS = {"complex64": "F32", "complex128": "F64"}
"""Those that are held as pairs of numbers, on another axis. All others are held as bytes."""
_NUMBERS = re.compile(r"bool|(?:u?int|b?float|complex)\d+\w*")
NAMES = {code: name for name, code in CODES.items()}


class Kind(NamedTuple):
    """What an array is."""

    dtype: str
    shape: tuple[int, ...]
    itemsize: int

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * self.itemsize

    @property
    def held(self) -> tuple[str, tuple[int, ...]]:
        """As which dtype, by its code, and in which shape a file holds it."""
        if self.dtype in CODES:
            return CODES[self.dtype], self.shape
        if self.dtype in PAIRS:
            return PAIRS[self.dtype], (*self.shape, 2)
        return "U8", (*self.shape, self.itemsize)


def itemsize_of(dtype: str) -> int:
    """Return the bytes of one element; ``TypeError`` if it is no dtype of numbers."""
    return 2 if dtype == "bfloat16" else dtype_of(dtype).itemsize


def dtype_of(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of a name; ``TypeError`` if it is none, or needs ml_dtypes, which is missing."""
    if not _NUMBERS.fullmatch(name):
        raise TypeError(f"{name} is no dtype of numbers.")
    try:
        return np.dtype(name)
    except TypeError:
        try:
            found = getattr(importlib.import_module("ml_dtypes"), name, None)
        except ImportError:
            raise TypeError(f"{name} needs the package ml_dtypes.") from None
    if found is None:
        raise TypeError(f"{name} is no dtype of NumPy or ml_dtypes.")
    dtype: np.dtype[Any] = np.dtype(found)
    return dtype


def bytes_of(array: Host, dtype: str) -> memoryview:
    """Return the bytes of an array in C order, little end first; without a copy if it has them so."""
    if dtype == "bfloat16" and array.dtype == np.float32:  # PyTorch's, which NumPy has no dtype for
        array = (array.view(np.uint32) >> 16).astype(np.uint16)
    array = np.asarray(array, order="C").reshape(-1)
    is_big = array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big")
    return (array.byteswap() if is_big else array).view(np.uint8).data


def array_of(data: Host, kind: Kind) -> Host:
    """Return the array that bytes stand for, as a view; float32 for bfloat16, where NumPy does not know that."""
    try:
        dtype = dtype_of(kind.dtype)
    except TypeError:
        if kind.dtype != "bfloat16":
            raise
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(kind.shape)
    if sys.byteorder == "big" and dtype.itemsize > 1:
        return data.view(dtype).byteswap().reshape(kind.shape)
    return data.view(dtype).reshape(kind.shape)
