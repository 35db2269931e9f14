"""Slots in a smaller dtype, in arrays of CuPy."""

from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, DType
from rmsprop.variables.compact import EncodedSlot
from rmsprop_cupy import compact_kernels

WRITE = files("rmsprop_cupy").joinpath("write.cu").read_text()
"""The text of the kernel that encodes."""


class CompactSlot(EncodedSlot):
    """A slot of zeros that is kept as codes, on the device that is the current one when it is made."""

    __slots__ = ()

    @staticmethod
    def _zeros(size: int, dtype: DType) -> Array:
        return cupy.zeros(size, dtype)

    def _read(self) -> Array:
        numbers = cupy.empty(self.codes.size, self.real)
        kernel = read_kernel(self.codes.dtype.name, self.real.name)
        if numbers.size:
            kernel(self.codes, self.scales, *self.blocks, self.blocks.per_row, numbers)
        return numbers

    def _write(self, reals: Array) -> None:
        blocks = reals.size // self.blocks.row * self.blocks.per_row
        kernel = write_kernel(self.codes.dtype.name, self.real.name)
        scales = np.uint64(0) if self.state_dtype == "bfloat16" else self.scales
        if blocks:
            sizes = *self.blocks, self.blocks.per_row
            kernel((blocks,), (compact_kernels.THREADS,), (reals, self.codes, scales, *sizes))


@cache
def read_kernel(code: str, real: str) -> Any:
    """Return the kernel that decodes a slot, given the dtypes of codes and reals."""
    is_scaled = code != "int16"
    scale = "scales[i / row * per_row + i % row / length]" if is_scaled else f"{_c_type(real)}(1)"
    return cupy.ElementwiseKernel(
        f"{code} codes, raw {real} scales, int64 row, int64 length, int64 per_row",
        f"{real} x",
        f"x = decoded(codes, {scale});",
        "rmsprop_read",
        preamble=compact_kernels.CODES,
    )


@cache
def write_kernel(code: str, real: str) -> Any:
    """Return the kernel that encodes a slot, given the dtypes of codes and reals."""
    text = Template(WRITE).substitute(
        codes=compact_kernels.CODES, code=compact_kernels.CODE_TYPES[code], real=_c_type(real)
    )
    return cupy.RawKernel(text, "rmsprop_write")


def _c_type(real: str) -> str:
    return {"float32": "float", "float64": "double"}[real]
