"""The kernels, compiled by CuPy when they are first used."""

from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

import cupy
import numpy as np

from rmsprop.formula import SLOTS, needed_slots
from rmsprop.norms import RANGES, SMALLEST
from rmsprop_cupy import source
from rmsprop_cupy.source import Variant

OPTIONS: tuple[str, ...] = ()
"""Options of the compiler; the tests switch the fusing of multiplications and additions off."""

REAL = {name: np.dtype(source.CUPY_TYPE[source.real_type(name)]).type for name in source.DTYPES}
"""For each dtype of a variable, the scalar type of its arithmetic."""

THREADS = 256
"""Threads of a block that sums up squares."""

FACTOR_THREADS = 1_024
"""Threads of the block that makes factors of the sums."""

CHUNK = 1_024
"""Elements that one row of the table of `list_kernel` stands for."""

NORM, FACTOR = [Template(files("rmsprop_cupy").joinpath(f"{name}.cu").read_text()) for name in ("norm", "factor")]
"""The texts of two whole kernels; names with a dollar before them are filled in."""

WINDOWS = files("rmsprop_cupy").joinpath("windows.cu").read_text()
"""What the kernel for windows asks of them."""

SUMS = Template("""
#ifndef RMSPROP_SUMS
#define RMSPROP_SUMS
#define UNIT $unit

#define LARGE 0x1p900
__device__ inline double added(double* shared, const double mine, const int lane, const int size) {
    shared[lane] = mine;
    for (int half = size / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) shared[lane] += shared[lane + half];
    }
    __syncthreads();
    const double sum = shared[0];
    __syncthreads();
    return sum;
}
#endif
""").substitute(unit=RANGES["float64"].scale.hex())
"""The sum of numbers that the threads of a team have: both kernels need it."""


def _real(variant: Variant) -> str:
    """Return the dtype of slots, scalars and factors; a double one would cost a kernel for floats its speed."""
    return source.CUPY_TYPE[source.real_type(variant.dtype)]


def _slots(variant: Variant) -> list[tuple[str, str]]:
    """Return dtype and name of what a kernel updates."""
    real = _real(variant)
    number = variant.dtype if source.is_complex(variant) else real
    names = needed_slots(variant.momentum, variant.centered, variant.average)
    return [(variant.dtype, "v"), *((real if SLOTS[name].averages_squares else number, name) for name in names)]


@cache
def array_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for one array of any strides."""
    factor = f"raw {_real(variant)} factors, int32 which, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        f"{variant.dtype} g, {factor}{source.scalar_parameters(variant)}",
        ", ".join(f"{dtype} {name}" for dtype, name in _slots(variant)),
        f"{source.guard(variant)} {{\n"
        f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};\n"
        + source.formula(variant)
        + "\n}",
        "rmsprop",
        preamble=source.PREAMBLE,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )


@cache
def pass_kernel(
    variant: Variant, statement: str, scalars: tuple[str, ...], arrays: tuple[str, ...], options: tuple[str, ...]
) -> Any:
    """Return the kernel of a statement on all elements of a variable or its slots, unless the step is left out.

    The last of the arrays is what it changes. Its name, and that of v, tell the dtypes.
    """
    dtypes = {name: dtype for dtype, name in _slots(variant)}
    factor = f"raw {_real(variant)} factors, int32 which" if variant.guarded else ""
    *given, changed = [f"{dtypes[name]} {name}" for name in arrays]
    numbers = [f"{_real(variant)} {name}" for name in scalars]
    return cupy.ElementwiseKernel(
        ", ".join(filter(None, [factor, *numbers, *given])),
        changed,
        f"{source.guard(variant)} {{ {statement} }}",
        "rmsprop_pass",
        preamble=source.PREAMBLE,
        loop_prep=source.factor(variant, "which") if variant.guarded else "",
        options=options,
    )


@cache
def norm_kernel(dtype: str, clipvalue: bool, terms: tuple[str, ...], options: tuple[str, ...]) -> Any:
    """Return the kernel for sums over gradients; see ``norm.cu``.

    Of its `terms`, ``"square((wide)gradient)"`` is that of norms, after clipping by value, and
    ``"nothing(given)"`` makes NaN of a sum if a gradient is not finite.
    """
    variant = Variant(dtype, False, False, clipvalue, False)
    code = NORM.substitute(
        preamble=source.PREAMBLE,
        sums=SUMS,
        threads=THREADS,
        wide="complex<double>" if source.is_complex(variant) else "double",
        stored=source.storage_type(dtype),
        number=source.number_type(dtype),
        real=source.real_type(dtype),
        limited=source.limited(variant, "given"),
        terms=" + ".join(terms),
    )
    return cupy.RawKernel(code, "rmsprop_norm", options=options)


@cache
def factor_kernel() -> Any:
    """Return the kernel that makes norms and clipping factors of the sums; see ``factor.cu``."""
    code = FACTOR.substitute(threads=FACTOR_THREADS, smallest=SMALLEST.hex(), sums=SUMS)
    return cupy.RawKernel(code, "rmsprop_factor")


@cache
def list_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for many contiguous arrays; see `rmsprop_cupy.lists` for its table."""
    slots = _slots(variant)
    columns = 3 + len(slots)
    types = [source.storage_type(dtype) for dtype, _ in slots]
    body = [
        f"const unsigned long long* row = &table[i / {CHUNK} * {columns}];",
        f"const int lane = i % {CHUNK};",
        source.factor(variant, "row[2]"),
        source.own_scalars(variant, "row[2]"),
        f"if (lane < row[0]) {source.guard(variant)} {{",
        f"const {types[0]} g = (({types[0]}*)gradients[row[2]])[row[1] + lane];",
        *[
            f"{kind}& {name} = (({kind}*)row[{column}])[lane];"
            for column, (kind, (_, name)) in enumerate(zip(types, slots, strict=True), 3)
        ],
        f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};",
        source.formula(variant),
        "}",
    ]
    factor = f"raw {_real(variant)} factors, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        # CuPy defines the half types only for kernels that have an argument of them: hence `sample`.
        f"raw {variant.dtype} sample, raw uint64 gradients, {factor}{source.scalar_parameters(variant)}",
        "raw uint64 table",
        "\n".join(body),
        "rmsprop_list",
        preamble=source.PREAMBLE,
        loop_prep=source.preparation(variant),
        options=options,
    )


class Update(NamedTuple):
    """What a kernel for sparse gradients does with the sum of the gradients of an element."""

    inputs: str
    """Declarations of further inputs, each with a comma before it."""
    outputs: str
    """Declarations of what is changed."""
    statements: str
    """They are given the `gradient`, and the `place` of the element in the variable."""
    preamble: str = ""


def full_update(variant: Variant) -> Update:
    """Return the update of a variable and its slots, which are kept in full."""
    outputs = ", ".join(f"raw {dtype} {name}_table" for dtype, name in _slots(variant))
    references = [f"auto& {name} = {name}_table[place];" for _, name in _slots(variant)]
    return Update("", outputs, "\n".join([*references, source.formula(variant)]))


@cache
def rows_kernel(variant: Variant, options: tuple[str, ...], update: Update | None = None) -> Any:
    """Return the kernel for sparse gradients.

    There is a thread for each listed row and column. The first of equal rows, which are neighbours in `ordered`,
    adds up the gradients of all of them in their order, so that the sum always has the same bits, those of the
    CPU; a row that is listed very often so takes that many turns of one thread. Rows beyond `height` are left out,
    and reported in `misses`, see `rmsprop_cupy.counters`.
    """
    update = update or full_update(variant)
    factor = f"raw {_real(variant)} factors, int32 which, " if variant.factor else ""
    number = source.number_type(variant.dtype)
    lines = [
        "const long long first = i / columns, column = i % columns, row = ordered[first];",
        "if (row < 0 || row >= height) {",
        "if (column == 0) report(&misses[0], row);",
        f"}} else if (first == 0 || ordered[first - 1] != row) {source.guard(variant)} {{",
        f"{number} gradient = 0;",
        "for (long long k = first; k < listed && ordered[k] == row; ++k)",
        f"gradient = gradient + {source.limited(variant, 'values[order[k] * columns + column]')};",
        "const long long place = row * columns + column;",
        update.statements,
        "}",
    ]
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw int64 order, raw int64 ordered, int64 listed, int64 columns, "
        f"int64 height, {factor}{source.scalar_parameters(variant)}{update.inputs}",
        f"raw int64 misses, {update.outputs}",
        "\n".join(lines),
        "rmsprop_rows",
        preamble=source.PREAMBLE + update.preamble,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )


@cache
def windows_kernel(variant: Variant, options: tuple[str, ...], axes: int, update: Update | None = None) -> Any:
    """Return the kernel for windows; see ``windows.cu``.

    There are `blocks` of threads for each window, and a thread for each element, or for each of its two reals if
    there are two `columns`. The first window in which an element lies adds up the gradients of all of them
    in their order, so that each element is written by one thread, and the sum has the bits of the CPU. Windows
    that are not inside of the variable are left out, and reported in `misses`, see `rmsprop_cupy.counters`.
    """
    update = update or full_update(variant)
    factor = f"raw {_real(variant)} factors, int32 which, " if variant.factor else ""
    patch, shape = [[f"{name}_{axis}" for axis in range(axes)] for name in ("patch", "shape")]
    own = [f"starts[window * {axes} + {axis}]" for axis in range(axes)]
    value = "values[(other * elements + element) * columns + column]"
    lines = [
        f"const long long patch[] = {{{', '.join(patch)}}}, shape[] = {{{', '.join(shape)}}};",
        "const long long block = i / blockDim.x, window = block / blocks;",
        "const long long lane = block % blocks * blockDim.x + threadIdx.x, column = lane % columns;",
        f"const long long start[] = {{{', '.join(own)}}};",
        f"long long index[{axes}];",
        "if (!lies_inside(start, patch, shape)) {",  # as all threads of a block find
        "if (lane == 0) report(&misses[3], window);",
        f"}} else {source.guard(variant)} {{",
        f"{source.number_type(variant.dtype)} gradient = 0;",
        "const bool is_within = locate(index, lane / columns, start, patch);",
        "const auto add = [&](const long long other, const long long element) {",
        f"gradient = gradient + {source.limited(variant, value)};",
        "};",
        "if (added_by_first(is_within, window, start, windows, &starts[0], index, patch, shape, add)) {",
        "const long long place = place_of(index, shape) * columns + column;",
        update.statements,
        "}",
        "}",
    ]
    sizes = ", ".join(f"int64 {name}" for name in (*patch, *shape))
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw int64 starts, int64 windows, int64 blocks, int64 elements, "
        f"int64 columns, {sizes}, {factor}{source.scalar_parameters(variant)}{update.inputs}",
        f"raw int64 misses, {update.outputs}",
        "\n".join(lines),
        "rmsprop_windows",
        preamble=source.PREAMBLE + update.preamble + WINDOWS,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )
