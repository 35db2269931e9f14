"""The kernels, compiled by CuPy when they are first used."""

from functools import cache
from typing import Any

import cupy

from rmsprop_cupy import source
from rmsprop_cupy.source import Variant

OPTIONS: tuple[str, ...] = ()
"""Options of the compiler; the tests switch the fusing of multiplications and additions off."""

CHUNK = 1_024
"""Elements that one row of the table of `list_kernel` stands for."""


def _slots(variant: Variant) -> list[tuple[str, str]]:
    """Return dtype and name of what a kernel updates."""
    real = source.CUPY_TYPE[source.real_type(variant.dtype)]
    number = variant.dtype if source.is_complex(variant) else real
    slots = [(variant.dtype, "v"), (real, "r")]
    return slots + [(number, "mom")] * variant.momentum + [(number, "mg")] * variant.centered


def _scalars(variant: Variant) -> str:
    real = source.CUPY_TYPE[source.real_type(variant.dtype)]
    return ", ".join(f"{real} {name}" for name in source.SCALARS)


@cache
def array_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for one array of any strides."""
    factor = "raw float64 factors, int32 which, " if variant.factor else ""
    prepare = f"const {source.real_type(variant.dtype)} factor = factors[which];" if variant.factor else ""
    return cupy.ElementwiseKernel(
        f"{variant.dtype} g, {factor}{_scalars(variant)}",
        ", ".join(f"{dtype} {name}" for dtype, name in _slots(variant)),
        f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};\n"
        + source.formula(variant),
        "rmsprop",
        preamble=source.PREAMBLE,
        loop_prep=prepare,
        options=options,
    )


@cache
def norm_kernel(dtype: str, clipvalue: bool, options: tuple[str, ...]) -> Any:
    """Return the kernel for the sum of ``|g|**2`` of a contiguous array, in double precision."""
    variant = Variant(dtype, False, False, clipvalue, False)
    wide = "complex<double>" if source.is_complex(variant) else "double"
    real = source.CUPY_TYPE[source.real_type(dtype)]
    return cupy.ReductionKernel(
        f"{dtype} g, {real} limit",
        "float64 total",
        f"square(({wide})({source.limited(variant, 'g')}))",
        "a + b",
        "total = a",
        "0",
        "rmsprop_norm",
        preamble=source.PREAMBLE,
        options=options,
    )


@cache
def list_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for many contiguous arrays; see `rmsprop_cupy.lists` for its table."""
    real = source.real_type(variant.dtype)
    slots = _slots(variant)
    columns = 3 + len(slots)
    types = [source.storage_type(dtype) for dtype, _ in slots]
    body = [
        f"const unsigned long long* row = &table[i / {CHUNK} * {columns}];",
        f"const int lane = i % {CHUNK};",
        "if (lane < row[0]) {",
        f"const {types[0]} g = (({types[0]}*)gradients[2 * row[2]])[row[1] + lane];",
        *[
            f"{kind}& {name} = (({kind}*)row[{column}])[lane];"
            for column, (kind, (_, name)) in enumerate(zip(types, slots, strict=True), 3)
        ],
        f"const {real} factor = factors[gradients[2 * row[2] + 1]];" if variant.factor else "",
        f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};",
        source.formula(variant),
        "}",
    ]
    factor = "raw float64 factors, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        # CuPy defines the half types only for kernels that have an argument of them: hence `sample`.
        f"raw {variant.dtype} sample, raw uint64 gradients, {factor}{_scalars(variant)}",
        "raw uint64 table",
        "\n".join(body),
        "rmsprop_list",
        preamble=source.PREAMBLE,
        options=options,
    )


@cache
def rows_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for sparse gradients.

    There is a thread for each listed row and column. The first of equal rows, which are neighbours in `ordered`,
    adds up the gradients of all of them in their order, so that the sum always has the same bits.
    """
    factor = "raw float64 factors, int32 which, " if variant.factor else ""
    real, number = source.real_type(variant.dtype), source.number_type(variant.dtype)
    lines = [
        "const long long first = i / columns, column = i % columns, row = ordered[first];",
        "if (first == 0 || ordered[first - 1] != row) {",
        f"{number} gradient = 0;",
        "for (long long k = first; k < listed && ordered[k] == row; ++k)",
        f"gradient = gradient + {source.limited(variant, 'values[order[k] * columns + column]')};",
        "const long long element = row * columns + column;",
        *[f"auto& {name} = {name}_table[element];" for _, name in _slots(variant)],
        source.formula(variant),
        "}",
    ]
    tables = ", ".join(f"raw {dtype} {name}_table" for dtype, name in _slots(variant))
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw int64 order, raw int64 ordered, int64 listed, int64 columns, "
        f"{factor}{_scalars(variant)}",
        tables,
        "\n".join(lines),
        "rmsprop_rows",
        preamble=source.PREAMBLE,
        loop_prep=f"const {real} factor = factors[which];" if variant.factor else "",
        options=options,
    )
