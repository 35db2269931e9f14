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


class Split(NamedTuple):
    """How a list is divided."""

    chunk: int = 1_024
    """Elements that one row of the table of `list_kernel` stands for."""
    vector: int = 1
    """Elements of each thread, which come from memory together where addresses allow it: 1 or 4."""


SPLIT = Split()
"""What `make gpu` finds the best of on a GPU. Vectors are not used until one has shown that they are faster."""

BLOCK = 256
"""Threads of a block that updates arrays again and again."""

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


def real_dtype(variant: Variant) -> str:
    """Return the dtype of slots, scalars and factors; a double one would cost a kernel for floats its speed."""
    return source.CUPY_TYPE[source.real_type(variant.dtype)]


def slot_types(variant: Variant) -> list[tuple[str, str]]:
    """Return dtype and name of what a kernel updates."""
    real = real_dtype(variant)
    number = variant.dtype if source.is_complex(variant) else real
    names = needed_slots(variant.momentum, variant.centered, variant.average)
    return [(variant.dtype, "v"), *((real if SLOTS[name].averages_squares else number, name) for name in names)]


@cache
def array_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for one array of any strides."""
    factor = f"raw {real_dtype(variant)} factors, int32 which, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        f"{variant.dtype} g, {factor}{source.scalar_parameters(variant)}",
        ", ".join(f"{dtype} {name}" for dtype, name in slot_types(variant)),
        array_body(variant),
        "rmsprop",
        preamble=source.PREAMBLE,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )


def array_body(variant: Variant) -> str:
    """Return the statements for an element of an array and its slots, which are references."""
    gradient = f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};"
    return f"{source.guard(variant)} {{\n{gradient}\n{source.formula(variant)}\n}}"


@cache
def pass_kernel(
    variant: Variant, statement: str, scalars: tuple[str, ...], arrays: tuple[str, ...], options: tuple[str, ...]
) -> Any:
    """Return the kernel of a statement on all elements of a variable or its slots, unless the step is left out.

    The last of the arrays is what it changes. Its name, and that of v, tell the dtypes.
    """
    dtypes = {name: dtype for dtype, name in slot_types(variant)}
    factor = f"raw {real_dtype(variant)} factors, int32 which" if variant.guarded else ""
    *given, changed = [f"{dtypes[name]} {name}" for name in arrays]
    numbers = [f"{real_dtype(variant)} {name}" for name in scalars]
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
def list_kernel(variant: Variant, split: Split, options: tuple[str, ...]) -> Any:
    """Return the kernel for many contiguous arrays; see `rmsprop_cupy.lists` for its table."""
    factor = f"raw {real_dtype(variant)} factors, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        # CuPy defines the half types only for kernels that have an argument of them: hence `sample`.
        f"raw {variant.dtype} sample, raw uint64 gradients, {factor}{source.scalar_parameters(variant)}",
        "raw uint64 table",
        list_body(variant, split),
        "rmsprop_list",
        preamble=source.PREAMBLE + source.VECTORS,
        loop_prep=source.preparation(variant),
        options=options,
    )


def list_body(variant: Variant, split: Split) -> str:
    """Return the statements for one thread, which has an element of a row of a table, or several."""
    columns = 3 + len(slot_types(variant))
    elements = _elements if split.vector == 1 else _vectors
    lines = [
        f"const unsigned long long* row = &table[i / {split.chunk // split.vector} * {columns}];",
        f"const int lane = i % {split.chunk // split.vector} * {split.vector};",
        source.factor(variant, "row[2]"),
        source.own_scalars(variant, "row[2]"),
        f"if (lane < row[0]) {source.guard(variant)} {{",
        *elements(variant, split.vector),
        "}",
    ]
    return "\n".join(lines)


def _pointers(variant: Variant) -> list[tuple[str, str, str]]:
    """Return type, name and address of what a thread reads: the gradient, the variable and its slots."""
    slots = [(source.storage_type(dtype), name) for dtype, name in slot_types(variant)]
    gradient = slots[0][0], "g", f"({slots[0][0]}*)gradients[row[2]] + row[1] + lane"
    return [gradient, *[(kind, name, f"({kind}*)row[{3 + k}] + lane") for k, (kind, name) in enumerate(slots)]]


def _elements(variant: Variant, count: int) -> list[str]:
    """Return the statements for one element."""
    (kind, name, place), *slots = _pointers(variant)
    gradient = f"const {kind} {name} = *({place});"
    references = [f"{kind}& {name} = *({place});" for kind, name, place in slots]
    return [gradient, *references, array_body(variant._replace(guarded=False))]


def _vectors(variant: Variant, count: int) -> list[str]:
    """Return the statements for several elements, which are read and written together."""
    pointers = _pointers(variant)
    references = [f"{kind}& {name} = {name}_vector.x[k];" for kind, name, _ in pointers]
    return [
        f"const int count = min({count}, (int)(row[0] - lane));",
        *[f"Vector<{kind}, {count}> {name}_vector(*({place}), count);" for kind, name, place in pointers],
        "#pragma unroll",
        f"for (int k = 0; k < {count}; ++k) {{",
        *references,
        array_body(variant._replace(guarded=False)),
        "}",
        *[f"{name}_vector.write(*({place}), count);" for _, name, place in pointers[1:]],
    ]


class Change(NamedTuple):
    """What the kernel for windows, or one for rows, does with the sum of the gradients of an element."""

    inputs: str
    """Declarations of further inputs, each with a comma before it."""
    outputs: str
    """Declarations of what is changed."""
    statements: str
    """They are given the `gradient`, and the `place` of the element in the variable."""
    preamble: str = ""


def full_change(variant: Variant) -> Change:
    """Return the update of a variable and its slots, which are kept in full."""
    outputs = ", ".join(f"raw {dtype} {name}_table" for dtype, name in slot_types(variant))
    references = [f"auto& {name} = {name}_table[place];" for _, name in slot_types(variant)]
    return Change("", outputs, "\n".join([*references, source.formula(variant)]))


@cache
def windows_kernel(variant: Variant, options: tuple[str, ...], axes: int, change: Change | None = None) -> Any:
    """Return the kernel for windows; see ``windows.cu``.

    There are `blocks` of threads for each window, and a thread for each element, or for each of its two reals if
    there are two `columns`. The first window in which an element lies adds up the gradients of all of them
    in their order, so that each element is written by one thread, and the sum has the bits of the CPU. Windows
    that are not inside of the variable are left out, and reported in `misses`, see `rmsprop_cupy.counters`.
    """
    change = change or full_change(variant)
    factor = f"raw {real_dtype(variant)} factors, int32 which, " if variant.factor else ""
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
        change.statements,
        "}",
        "}",
    ]
    sizes = ", ".join(f"int64 {name}" for name in (*patch, *shape))
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw int64 starts, int64 windows, int64 blocks, int64 elements, "
        f"int64 columns, {sizes}, {factor}{source.scalar_parameters(variant)}{change.inputs}",
        f"raw int64 misses, {change.outputs}",
        "\n".join(lines),
        "rmsprop_windows",
        preamble=source.PREAMBLE + change.preamble + WINDOWS,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )
