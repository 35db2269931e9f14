"""One step over a list of CuPy arrays."""

from collections.abc import Sequence
from typing import Any

from rmsprop.backends import Gradient, Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import Parameter
from rmsprop_cupy import devices, kernels, lists, rows
from rmsprop_cupy.arguments import paired, slots, variant_of
from rmsprop_cupy.captures import Captured, scalars
from rmsprop_cupy.kept import Kept, kept_for_step

Array = Any

FEW = 3
"""Arrays up to which each gets a launch of its own, which needs no table."""


def update(
    parameters: Sequence[Parameter],
    gradients: Sequence[Gradient],
    factors: dict[str, Array] | Array | None,
    hyper: Hyperparameters,
) -> Captured | None:
    """Update all variables and slots; see `rmsprop.backends.Backend`."""
    kept = kept_for_step(parameters)
    separated = _disjoint(parameters, gradients)
    if factors is not None and not isinstance(factors, dict):  # those of several array libraries
        factors = {name: factors.astype(name, copy=False) for name in ("float64", "float32")}
    alike: dict[Any, list[int]] = {}
    for i, (parameter, gradient) in enumerate(zip(parameters, separated, strict=True)):
        array = parameter.variable.array
        is_dense = not isinstance(gradient, IndexedSlices)
        is_listed = is_dense and array.flags.c_contiguous and gradient.flags.c_contiguous  # type: ignore[union-attr]
        alike.setdefault((array.data.device_id, array.dtype) if is_listed else i, []).append(i)
    addressed = [g.values if isinstance(g, IndexedSlices) else g for g in separated]
    kept.keep(addressed)
    for kind, members in alike.items():
        array = parameters[members[0]].variable.array
        real = kernels.REAL[array.dtype.name].__name__
        near = None if factors is None else devices.on(array.device, factors[real])
        if isinstance(kind, tuple) and len(members) > FEW:
            lists.update([parameters[i] for i in members], members, addressed, near, hyper, kept)
            continue
        for i in members:
            _update_one(parameters[i], separated[i], i, near, hyper, kept)
    return kept.captured


def _disjoint(parameters: Sequence[Parameter], gradients: Sequence[Gradient]) -> list[Gradient]:
    """Return the gradients, those in the memory of a variable or a slot as copies."""
    owners = {id(v.array.data.mem) for p in parameters for v in (p.variable, *p.slots.values())}

    def apart(array: Array) -> Array:
        return array.copy() if id(array.data.mem) in owners else array

    return [
        IndexedSlices(apart(g.values), g.indices) if isinstance(g, IndexedSlices) else apart(g) for g in gradients
    ]


def _update_one(
    parameter: Parameter, gradient: Gradient, which: int, factors: Array | None, hyper: Hyperparameters, kept: Kept
) -> None:
    array = parameter.variable.array
    tables = [paired(a, hyper) for a in slots(parameter, hyper)]
    variant = variant_of(tables[0], hyper, factors, kept.captured)
    factor = () if factors is None else (factors, which)
    with array.device:
        if isinstance(gradient, IndexedSlices):
            rows.update(parameter, variant, tables, gradient, factor, hyper)
        else:
            kernel = kernels.array_kernel(variant, kernels.OPTIONS)
            kernel(paired(gradient, hyper), *factor, *scalars(variant, hyper, kept.captured), *tables)
