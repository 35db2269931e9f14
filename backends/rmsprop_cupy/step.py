"""One step over a list of CuPy arrays."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.arrays.windows import Windows
from rmsprop.backends import SPARSE, Gradient, Refresh, Updatable, values_of, with_values
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import kernels, lists, norms, replay, rows, sparse
from rmsprop_cupy.kept import Kept, kept_for_step
from rmsprop_cupy.launches import Launch, make, paired, slots, variant_of
from rmsprop_cupy.streams import is_captured, on


def check_step(parameters: Sequence[Updatable], gradients: Sequence[Gradient], positions: Sequence[int]) -> bool:
    """Raise errors that are about devices; tell whether the step is to be captured."""
    used = set()
    for position, parameter, gradient in zip(positions, parameters, gradients, strict=True):
        device = parameter.variable.array.data.device_id
        used.add(device)
        for part in _parts(gradient):
            if part.data.device_id != device:
                raise ValueError(
                    f"Gradient of variable {position} {parameter}: it is on device {part.data.device_id}, not on "
                    f"device {device} like the variable."
                )
    capturing = [device for device in used if is_captured(device)]
    if capturing and len(used) > 1:
        raise RuntimeError(f"A captured step needs all variables on one device; given devices {sorted(used)}.")
    return bool(capturing)


def _parts(gradient: Gradient) -> list[Array]:
    """Return the arrays of a gradient that are on a device."""
    if isinstance(gradient, IndexedSlices):
        return [gradient.values, gradient.indices]
    if isinstance(gradient, Windows):
        return [part for part in (gradient.values, gradient.starts) if not isinstance(part, np.ndarray)]
    return [gradient]


def prepare(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    factors: norms.Clipping | Array | None,
    hyper: Hyperparameters,
) -> Callable[[], Refresh | None]:
    """Get all memory that is needed; return what launches the kernels."""
    kept = factors.kept if isinstance(factors, norms.Clipping) else kept_for_step(parameters, hyper)
    separated = _disjoint(parameters, gradients, kept)
    addressed = [values_of(gradient) for gradient in separated]
    kept.keep(addressed)
    if hyper.state_dtype is not None:
        from rmsprop_cupy import compact_step  # only for those who ask for it

        near_all = None if factors is None else partial(_near, factors=factors)
        skipped = factors.plan.skipped if isinstance(factors, norms.Clipping) else None
        launches = compact_step.launches(parameters, separated, near_all, skipped, hyper, kept)
        return partial(_launch, launches, kept, addressed)
    prepared: list[Launch] = []
    for members in _groups(parameters, separated):
        array = parameters[members[0]].variable.array
        near = None if factors is None else _near(array, factors)
        if len(members) > lists.FEW:
            group = [parameters[i] for i in members]
            prepared += lists.launches(group, members, addressed, near, hyper, kept)
            continue
        for i in members:
            prepared += _launches(parameters[i], separated[i], i, near, hyper, kept)
    prepared += _rows(parameters, separated, factors, hyper, kept)
    replay.keep(parameters, gradients, factors, hyper, kept)
    return partial(_launch, prepared, kept, addressed)


def _launch(prepared: list[Launch], kept: Kept, alive: Sequence[Array]) -> Refresh | None:
    """Launch the kernels; of the gradients in `alive`, some of which are copies, they may only get the address."""
    make(prepared, kept.used)
    return None if kept.captured is None else kept.refresh


def _rows(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    factors: norms.Clipping | Array | None,
    hyper: Hyperparameters,
    kept: Kept,
) -> list[Launch]:
    """Return the launches for all variables that have rows as gradients."""
    by_device: dict[int, list[tuple[int, IndexedSlices]]] = {}
    for i, gradient in enumerate(gradients):
        if isinstance(gradient, IndexedSlices):
            by_device.setdefault(parameters[i].variable.array.data.device_id, []).append((i, gradient))
    begun, updated, finished = [], [], []
    for device, members in by_device.items():
        listed = []
        with cupy.cuda.Device(device):
            for i, gradient in members:
                tables = [paired(a, hyper) for a in slots(parameters[i], hyper)]
                near = None if factors is None else _near(tables[0], factors)
                variant = variant_of(tables[0], hyper, near, None)
                found = sparse.passes(parameters[i], variant, tables, () if near is None else (near, i), hyper)
                begun += found.begun
                finished += found.finished
                if gradient.values.size:
                    listed.append(rows.Rows(i, parameters[i], gradient, near, *found[2:]))
            updated += rows.launches(listed, hyper, kept) if listed else []
    return begun + updated + finished


def _groups(parameters: Sequence[Updatable], gradients: Sequence[Gradient]) -> list[list[int]]:
    """Return the positions of contiguous arrays of one device and dtype together, those of others alone.

    Those with rows as gradients are not among them.
    """
    alike: dict[Any, list[int]] = {}
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        if isinstance(gradient, IndexedSlices):
            continue
        array = parameter.variable.array
        is_dense = not isinstance(gradient, SPARSE)
        is_listed = is_dense and array.flags.c_contiguous and gradient.flags.c_contiguous  # type: ignore[union-attr]
        alike.setdefault((array.data.device_id, array.dtype) if is_listed else i, []).append(i)
    return list(alike.values())


def _disjoint(parameters: Sequence[Updatable], gradients: Sequence[Gradient], kept: Kept) -> list[Gradient]:
    """Return the gradients, those in the memory of a variable or a slot as copies."""
    arrays = [values_of(gradient) for gradient in gradients]
    separated = list(gradients)
    for i, is_shared in enumerate(kept.occupied(parameters).overlap(arrays)):
        if is_shared:
            with arrays[i].device:
                separated[i] = with_values(gradients[i], arrays[i].copy())
    return separated


def _near(array: Array, factors: norms.Clipping | Array) -> Array:
    """Return the factors on the device of an array, and in the precision of its arithmetic."""
    real = kernels.REAL[array.dtype.name].__name__
    if isinstance(factors, norms.Clipping):
        return on(array.device, factors.plan.factors[real])
    with factors.device:  # those of several array libraries
        precise = factors.reshape(-1).astype(real, copy=False)
    return on(array.device, precise)


def _launches(
    parameter: Updatable,
    gradient: Gradient,
    which: int,
    factors: Array | None,
    hyper: Hyperparameters,
    kept: Kept,
) -> list[Launch]:
    """Return the launches for one array."""
    array = parameter.variable.array
    tables = [paired(a, hyper) for a in slots(parameter, hyper)]
    variant = variant_of(tables[0], hyper, factors, kept.captured)
    factor = () if factors is None else (factors, which)
    with array.device:
        if isinstance(gradient, Windows):
            return sparse.launches(parameter, variant, tables, gradient, factor, hyper)
        arguments = (paired(gradient, hyper), *factor, *kept.scalars(variant, hyper, which), *tables)
    return [Launch(array.device, kernels.array_kernel(variant, kernels.OPTIONS), arguments)]
