"""The changes of single elements by windows and rows, of variables whose slots are codes."""

from rmsprop_cupy import compact_kernels, source
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
