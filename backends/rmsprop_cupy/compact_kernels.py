"""The kernels that update variables whose slots are codes."""

from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

import cupy

from rmsprop.formula import AVERAGE, SLOTS, needed_slots
from rmsprop.variables.compact import LEAST, LENGTH
from rmsprop_cupy import row_kernels, source
from rmsprop_cupy.source import Variant

THREADS = 256
"""Threads of a block at most, a multiple of 32."""

FIXED = ("size", "start", "position", "v")
"""The first columns of the table of a list; see `rmsprop_cupy.compact_dense`."""

CODES, UPDATE = [files("rmsprop_cupy").joinpath(f"{name}.cu").read_text() for name in ("codes", "compact")]
CODE_TYPES = {"int16": "short", "uint8": "unsigned char", "int8": "signed char"}
"""The C types of codes."""


class Slot(NamedTuple):
    """A slot that is kept as codes, in a kernel."""

    name: str
    order: int
    """Which it is in `rmsprop.formula.SLOTS`, and so for the dither."""
    number: str
    """The C type of its numbers."""
    code: str
    """The C type of its codes."""
    reals: int
    """How many codes a number has."""


def slots_of(variant: Variant, state_dtype: str) -> list[Slot]:
    """Return the slots of a variable that are kept as codes."""
    found = []
    for name in needed_slots(variant.momentum, variant.centered):
        is_real = SLOTS[name].averages_squares or not source.is_complex(variant)
        number = source.real_type(variant.dtype) if is_real else source.number_type(variant.dtype)
        small = "uint8" if SLOTS[name].averages_squares else "int8"
        code = CODE_TYPES["int16" if state_dtype == "bfloat16" else small]
        found.append(Slot(name, [*SLOTS].index(name), number, code, 1 if is_real else 2))
    return found


def columns_of(variant: Variant, state_dtype: str) -> list[str]:
    """Return the columns of the table of a list."""
    parts = ("codes", "scaling") if state_dtype == "uint8" else ("codes",)
    columns = [f"{slot.name}_{part}" for slot in slots_of(variant, state_dtype) for part in parts]
    return [*FIXED, *columns, *[AVERAGE] * variant.average]


@cache
def list_kernel(variant: Variant, state_dtype: str, is_wide: bool, options: tuple[str, ...]) -> Any:
    """Return the kernel for contiguous arrays; see `rmsprop_cupy.compact_dense` for its table.

    Gradients have the dtype of their variable, or if they are wide that of the computation.
    """
    columns, stored = columns_of(variant, state_dtype), source.storage_type(variant.dtype)
    number = source.number_type(variant.dtype)
    given = number if is_wide else stored
    slots, has_scales = slots_of(variant, state_dtype), state_dtype == "uint8"
    column = {name: f"row[{k}]" for k, name in enumerate(columns)}
    locate = [
        "__shared__ wide_word row[COLUMNS + 3];",
        "if (threadIdx.x < COLUMNS) {",
        "const wide_word given = table[(long long)blockIdx.x * COLUMNS + threadIdx.x];",
        "row[threadIdx.x] = given;",
        "if (threadIdx.x == 2) for (int k = 0; k < 3; ++k) row[COLUMNS + k] = addresses[k * count + given];",
        *[
            f"if (threadIdx.x == {columns.index(f'{slot.name}_scaling')}) scales[{k}] = *(const R*)given;"
            for k, slot in enumerate(slots if has_scales else [])
        ],
        "}",
    ]
    begin = [
        "const int size = row[0];",
        "const word start = row[1];",
        source.preparation(variant),
        source.own_scalars(variant, "row[2]"),
        source.factor(variant, "row[2]"),
        "if (!(factor == factor)) return;" if variant.guarded else "",
        f"const {given}* const values = (const {given}*)row[COLUMNS] + row[1];",
        f"{stored}* const v_table = ({stored}*)({column['v']} + row[COLUMNS + 1]);",
        *[
            f"{slot.code}* const {slot.name}_codes = ({slot.code}*){column[f'{slot.name}_codes']};"
            for slot in slots
        ],
        *[f"R* const {slot.name}_scaling = (R*){column[f'{slot.name}_scaling']};" for slot in slots if has_scales],
    ]
    if variant.average:
        begin.append(f"{number}* const means = ({number}*)({column[AVERAGE]} + row[COLUMNS + 2]);")
    gradient = f"const {number} gradient = {source.limited(variant, 'values[j]')};"
    parameters = ["const wide_word* table", "const wide_word* addresses", "const long long count"]
    return _kernel("rmsprop_compact", variant, state_dtype, options, parameters, locate, begin, gradient)


@cache
def rows_kernel(variant: Variant, state_dtype: str, options: tuple[str, ...]) -> Any:
    """Return the kernel for sparse gradients, in which blocks belong to listed rows."""
    stored = source.storage_type(variant.dtype)
    slots, has_scales = slots_of(variant, state_dtype), state_dtype == "uint8"
    tables = [f"{stored}* v"]
    for slot in slots:
        tables += [f"{slot.code}* {slot.name}_all", *[f"{_real(variant)}* {slot.name}_scalings"] * has_scales]
    locate = [
        "const long long first = blockIdx.x / per_row, part = blockIdx.x % per_row, place = part * length;",
        "const unsigned long long row = elements[first] >> low;",
        "if (row >= height || (first > 0 && elements[first - 1] >> low == row)) return;",
        "const long long whole_start = row * width + place, block = row * per_row + part;",
        *[
            f"if (threadIdx.x == 0) scales[{k}] = {slot.name}_scalings[block];"
            for k, slot in enumerate(slots if has_scales else [])
        ],
    ]
    begin = [
        "const int size = min(length, width - place);",
        "const word start = whole_start;",
        source.factor(variant, "which"),
        "if (!(factor == factor)) return;" if variant.guarded else "",
        f"{stored}* const v_table = v + whole_start;",
        *[f"{s.code}* const {s.name}_codes = {s.name}_all + {s.reals} * whole_start;" for s in slots],
        *[f"R* const {slot.name}_scaling = {slot.name}_scalings + block;" for slot in slots if has_scales],
    ]
    value = row_kernels.value_at("place + j")
    sums = row_kernels.summing(variant, value), row_kernels.summed(variant, "sum_from(k)")
    gradient = f"const auto gradient = [&] {{{''.join(sums)}return gradient;}}();"
    parameters = [
        f"const {stored}* values", "const unsigned long long* elements",
        *[f"const long long {name}" for name in ("count", "low", "width", "height", "length", "per_row")],
        *tables, *["const int which"] * variant.factor,
    ]  # fmt: skip
    return _kernel("rmsprop_compact_rows", variant, state_dtype, options, parameters, locate, begin, gradient)


def _kernel(
    name: str,
    variant: Variant,
    state_dtype: str,
    options: tuple[str, ...],
    parameters: list[str],
    locate: list[str],
    begin: list[str],
    gradient: str,
) -> Any:
    """Return a kernel, given how its blocks are found and what is the gradient of an element."""
    slots = slots_of(variant, state_dtype)
    dithers = [
        f"const word {slot.name}_dither = dithers[{slot.order}] + {slot.reals} * start * stride;" for slot in slots
    ]
    kept, keep, end = encoding(slots, state_dtype)
    code = Template(UPDATE).substitute(
        name=name,
        preamble=source.PREAMBLE,
        codes=CODES,
        each=-(-LENGTH // THREADS) // (2 if source.is_complex(variant) else 1),
        slots=len(slots),
        columns=len(columns_of(variant, state_dtype)),
        threads=THREADS,
        real=source.real_type(variant.dtype),
        parameters=", ".join([*parameters, *_parameters(variant)]),
        step=("steps[0]" if variant.captured else "step_number") + " - skipped[0]" * variant.guarded,
        locate="\n".join(locate),
        begin="\n".join([*begin, *dithers, *kept]),
        gradient=gradient,
        update="\n".join([*reading(variant, slots, state_dtype), source.formula(variant), *keep]),
        end="\n".join(end),
    )
    return cupy.RawKernel(code, name, options=options)


def _real(variant: Variant) -> str:
    return source.real_type(variant.dtype)


def _parameters(variant: Variant) -> list[str]:
    """Return the declarations of what kernels have in common: factors, scalars, and the number of the step."""
    real = _real(variant)
    found = [f"const {real}* factors"] * variant.factor
    found += [f"const {real}* numbers"] * (variant.captured or variant.multiplied)
    found += [f"const {real} {name}" for name in source.shared_scalars(variant) if not variant.captured]
    found += ["const wide_word* steps"] if variant.captured else ["const wide_word step_number"]
    return found + ["const wide_word* skipped"] * variant.guarded


def reading(variant: Variant, slots: list[Slot], state_dtype: str) -> list[str]:
    """Return the statements that read an element of a variable and of its slots."""
    lines = [f"{source.storage_type(variant.dtype)}& v = v_table[j];"]
    for k, slot in enumerate(slots):
        scale = f"scales[{k}]" if state_dtype == "uint8" else "R(1)"
        lines.append(f"{slot.number} {slot.name}; read({slot.name}, {slot.name}_codes, j, {scale});")
    if variant.centered:
        lines.append(f"const R floor_ = square(mg) * R({LEAST[state_dtype]!r});")
        lines.append("if (rms < floor_) rms = floor_;")
    return [*lines, *["auto& average = means[j];"] * variant.average]


def encoding(slots: list[Slot], state_dtype: str) -> tuple[list[str], list[str], list[str]]:
    """Return the statements that make codes of new numbers: before the loop, in it and after it."""
    if state_dtype == "bfloat16":
        written = "write({0}, {0}_codes, j, Divisor<R>(), {0}_dither, stride);"
        return [], [written.format(slot.name) for slot in slots], []
    before = [f"{slot.number} kept_{slot.name}[EACH]; B most_{slot.name} = 0;" for slot in slots]
    within = [
        f"kept_{slot.name}[k] = {slot.name}; most_{slot.name} = max(most_{slot.name}, finite_bits({slot.name}));"
        for slot in slots
    ]
    after = []
    for k, slot in enumerate(slots):
        after.append(f"most_{slot.name} = largest_of_warp(most_{slot.name});")
        after.append(f"if (threadIdx.x % 32 == 0) largest[{k}][threadIdx.x / 32] = most_{slot.name};")
    after.append("__syncthreads();")
    for k, slot in enumerate(slots):
        after.append(f"const R {slot.name}_new = scale_of(largest_of_block(largest[{k}]));")
        after.append(f"const Divisor<R> {slot.name}_by({slot.name}_new);")
        after.append(
            f"if (threadIdx.x == 0 && {slot.name}_new != scales[{k}]) *{slot.name}_scaling = {slot.name}_new;"
        )
    after += ["#pragma unroll", "for (int k = 0; k < EACH; ++k) {"]
    after += ["const int j = threadIdx.x + k * blockDim.x;", "if (j < size) {"]
    written = "write(kept_{0}[k], {0}_codes, j, {0}_by, {0}_dither, stride);"
    return before, within, [*after, *[written.format(slot.name) for slot in slots], "}", "}"]


def computing(variant: Variant) -> str:
    """Return the dtype of gradients in the computation."""
    return variant.dtype if source.is_complex(variant) else source.CUPY_TYPE[source.real_type(variant.dtype)]
