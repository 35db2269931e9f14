"""The changes of single elements by windows and rows, of variables whose slots are codes."""

from functools import cache
from typing import Any

import cupy

from rmsprop.arrays.rows import MANY
from rmsprop_cupy import compact_kernels, kernels, source
from rmsprop_cupy.kernels import Change
from rmsprop_cupy.source import Variant


def element_update(variant: Variant) -> Change:
    """Return the update of an element whose slots have codes of bfloat16, which need no scale."""
    slots = compact_kernels.slots_of(variant, "bfloat16")
    outputs = [f"raw {variant.dtype} v_all", *[f"raw int16 {slot.name}_all" for slot in slots]]
    step = "step_number" + " - skipped[0]" * variant.guarded
    lines = [
        f"typedef {source.real_type(variant.dtype)} R;",
        "const int j = 0;",
        f"const word stride = dither_of(3, {step});",
    ]
    for slot in slots:
        first = f"dither_of({slot.order}, {step}) + {slot.reals} * (word)place * stride"
        lines.append(f"const word {slot.name}_dither = {first};")
        lines.append(f"short* const {slot.name}_codes = &{slot.name}_all[{slot.reals} * place];")
    lines.append(f"{source.storage_type(variant.dtype)}* const v_table = &v_all[place];")
    _, keep, _ = compact_kernels.encoding(slots, "bfloat16")
    lines += [*compact_kernels.reading(variant, slots, "bfloat16"), source.formula(variant), *keep]
    inputs = ", uint64 step_number" + ", raw uint64 skipped" * variant.guarded
    return Change(inputs, ", ".join(outputs), "\n".join(lines), compact_kernels.CODES)


def gathering(variant: Variant) -> Change:
    """Return what brings the gradients of listed elements, with weight decay, to a dense array."""
    number = source.number_type(variant.dtype)
    decay = f" + times(({number})v_table[place], weight_decay)" * ("weight_decay" in variant.terms)
    outputs = f"raw {variant.dtype} v_table, raw {compact_kernels.computing(variant)} dense_table"
    return Change("", outputs, f"dense_table[place] = gradient{decay};")


@cache
def rows_kernel(variant: Variant, options: tuple[str, ...], change: Change) -> Any:
    """Return the kernel for rows, with a thread for each that is listed and each column.

    The first of equal rows, which are neighbours in `ordered`, adds up the gradients of all of them, `MANY` at a
    time, so that the sum always has the same bits, those of the CPU. Rows beyond `height` are left out, and
    reported in `misses`, see `rmsprop_cupy.counters`.
    """
    factor = f"raw {kernels.real_dtype(variant)} factors, int32 which, " if variant.factor else ""
    number = source.number_type(variant.dtype)
    lines = [
        "const long long first = i / columns, column = i % columns, row = ordered[first];",
        "if (row < 0 || row >= height) {",
        "if (column == 0) report(&misses[0], row);",
        f"}} else if (first == 0 || ordered[first - 1] != row) {source.guard(variant)} {{",
        f"{number} gradient = -({number})0;",
        "for (long long k = first; k < listed && ordered[k] == row;) {",
        f"{number} part = -({number})0;",
        f"for (const long long stop = min(listed, k + {MANY}); k < stop && ordered[k] == row; ++k)",
        f"part = part + {source.limited(variant, 'values[order[k] * columns + column]')};",
        "gradient = gradient + part;",
        "}",
        "const long long place = row * columns + column;",
        change.statements,
        "}",
    ]
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw int64 order, raw int64 ordered, int64 listed, int64 columns, "
        f"int64 height, {factor}{source.scalar_parameters(variant)}{change.inputs}",
        f"raw int64 misses, {change.outputs}",
        "\n".join(lines),
        "rmsprop_elements",
        preamble=source.PREAMBLE + change.preamble,
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )
