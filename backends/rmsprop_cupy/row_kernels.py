"""The kernels for the rows that sparse gradients list, once these are in order; see `rmsprop_cupy.sorting`.

A row that is listed more than `MANY` times is summed up in blocks of so many of its gradients, each by a thread of
its own, and these sums are added in order. So no thread adds all, and the bits are those of the CPU.
"""

from functools import cache
from typing import Any

import cupy

from rmsprop.arrays.rows import MANY
from rmsprop_cupy import kernels, sorting, source
from rmsprop_cupy.kernels import Change
from rmsprop_cupy.source import Variant
from rmsprop_cupy.updates import FILES, Fields, declared, scalar_fields

SUMS, UPDATE = "rmsprop_rows_sums", "rmsprop_rows"
"""The names of the two kernels."""

FIND = """
typedef unsigned long long word;
__device__ inline const word* gradient_of(const Given& given, const int column) {
    int low = 0, high = given.gradients - 1;  // the last one that begins at this block, or before
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (given.table[middle * COLUMNS + column] <= blockIdx.x) low = middle; else high = middle - 1;
    }
    return given.table + low * COLUMNS;
}
"""


def fields(variant: Variant) -> Fields:
    """Return the members of the structure that both kernels are given."""
    arrays = [(name, "u8", "unsigned long long*") for name in ("table", "elements")]
    numbers = [(name, "i8", "long long") for name in ("gradients", "low")]
    return [*arrays, *numbers, *scalar_fields(variant)]


def summing(variant: Variant, value: str) -> str:
    """Return the functions that tell if a sorted element is of this `row`, and add up those from one on, in order.

    `value` is the gradient of the element k.
    """
    number = source.number_type(variant.dtype)
    return f"""
const auto is_mine = [&](const long long k) {{ return k < count && elements[k] >> low == row; }};
const auto sum_from = [&](const long long from) {{
    {number} part = -({number})0;  // to which nothing is added as it is, with its sign
    for (long long k = from; k < from + {MANY} && is_mine(k); ++k) part = part + {source.limited(variant, value)};
    return part;
}};
"""


def summed(variant: Variant, whole_block: str) -> str:
    """Return the statements that add up all gradients of a row from its `first` element on, as `gradient`.

    `whole_block` is the sum of a whole block from k on, for rows that have more than one.
    """
    number = source.number_type(variant.dtype)
    return f"""
{number} gradient = -({number})0;
long long k = first;
if (is_mine(k + {MANY}))
    for (; is_mine(k + {MANY} - 1); k += {MANY}) gradient = gradient + {whole_block};
if (is_mine(k)) gradient = gradient + sum_from(k);
"""


def _beginning(variant: Variant, column: str) -> list[str]:
    """Return the statements that find out what a thread is for."""
    stored, number = source.storage_type(variant.dtype), source.number_type(variant.dtype)
    names = [name for name, *_ in scalar_fields(variant)]
    return [
        f"const word* own = gradient_of(given, {column});",
        "const long long count = own[COUNT], width = own[WIDTH], low = given.low, which = own[WHICH];",
        f"const long long i = (blockIdx.x - own[{column}]) * blockDim.x + threadIdx.x, column = i % width;",
        "const word* elements = given.elements + own[FIRST];",
        f"const {stored}* values = ({stored}*)own[VALUES];",
        f"{number}* sums = ({number}*)own[SUMS];",
        *[f"const auto {name} = given.{name};" for name in names],
        source.factor(variant, "which"),
        source.own_scalars(variant, "which"),
    ]


def value_at(column: str) -> str:
    """Return the gradient of the element k in a column."""
    return f"values[(long long)(elements[k] & (1ull << low) - 1) * width + {column}]"


def _sums(variant: Variant) -> list[str]:
    """Return the kernel that sums up whole blocks of rows that are listed more than `MANY` times.

    There is a thread for each stretch of so many elements, and each column: the block that it sums up, if there is
    one, begins in the stretch and holds its last element.
    """
    return [
        f'extern "C" __global__ void {SUMS}(const Given given) {{',
        *_beginning(variant, "FIRST_SUMS"),
        f"const long long last = (i / width + 1) * {MANY} - 1;",
        "if (last >= count || elements[last] >> low >= own[HEIGHT]) return;",
        "const word row = elements[last] >> low;",
        "long long first = 0, stop = last;",
        "while (first < stop) {",
        "const long long middle = (first + stop) / 2;",
        "if (elements[middle] >> low < row) first = middle + 1; else stop = middle;",
        "}",
        summing(variant, value_at("column")),
        f"const long long begin = first + (last - first) / {MANY} * {MANY};",
        f"if (is_mine(first + {MANY}) && is_mine(begin + {MANY} - 1)) sums[i] = sum_from(begin);",
        "}",
    ]


def _update(variant: Variant) -> list[str]:
    """Return the kernel with a thread for each element and column, of which the first of a row update it."""
    types = kernels.slot_types(variant)
    return [
        f'extern "C" __global__ void {UPDATE}(const Given given) {{',
        *_beginning(variant, "FIRST_BLOCK"),
        "const long long first = i / width;",
        "if (first >= count || elements[first] >> low >= own[HEIGHT]) return;",
        "const word row = elements[first] >> low;",
        "if (first > 0 && elements[first - 1] >> low == row) return;",
        summing(variant, value_at("column")),
        f"{source.guard(variant)} {{",
        summed(variant, f"sums[k / {MANY} * width + column]"),
        "const long long place = (long long)row * width + column;",
        *[
            f"auto& {name} = (({source.storage_type(dtype)}*)own[TABLES + {at}])[place];"
            for at, (dtype, name) in enumerate(types)
        ],
        source.formula(variant),
        "}",
        "}",
    ]


def code_of(variant: Variant) -> str:
    """Return both kernels."""
    parts = [FILES, source.PREAMBLE, sorting.defined(), declared(fields(variant)), FIND]
    return "\n".join([*parts, *_sums(variant), *_update(variant)])


def kernel(variant: Variant, name: str) -> Any:
    """Return one of the kernels, `SUMS` or `UPDATE`, compiled for the current device."""
    return compiled(variant, kernels.OPTIONS)[name]


@cache
def compiled(variant: Variant, options: tuple[str, ...]) -> dict[str, Any]:
    """Return both kernels by their names."""
    module = cupy.RawModule(code=code_of(variant), options=options)
    return {name: module.get_function(name) for name in (SUMS, UPDATE)}


@cache
def strided_kernel(variant: Variant, options: tuple[str, ...], change: Change | None = None) -> Any:
    """Return the kernel for one variable of any strides, in which one thread adds up all blocks of a row."""
    change = change or kernels.full_change(variant)
    factor = f"raw {kernels.real_dtype(variant)} factors, int32 which, " if variant.factor else ""
    lines = [
        "const long long first = i / width, column = i % width;",
        "const unsigned long long row = elements[first] >> low;",
        f"if (row < height && (first == 0 || elements[first - 1] >> low != row)) {source.guard(variant)} {{",
        summing(variant, value_at("column")),
        summed(variant, "sum_from(k)"),
        "const long long place = (long long)row * width + column;",
        change.statements,
        "}",
    ]
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw uint64 elements, int64 count, int64 low, int64 width, int64 height, "
        f"{factor}{source.scalar_parameters(variant)}{change.inputs}",
        change.outputs,
        "\n".join(lines),
        "rmsprop_strided_rows",
        preamble=source.PREAMBLE + change.preamble,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )
