"""One step over a list of variables whose slots are kept in a smaller dtype."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import cupy

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.backends import SPARSE, Gradient, Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import compact_dense, compact_sparse, rows
from rmsprop_cupy.compact_dense import Given
from rmsprop_cupy.counters import Tally, attempted
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.launches import Launch, paired, variant_of
from rmsprop_cupy.rows import Listing, Rows
from rmsprop_cupy.streams import on

Near = Callable[[Array], Array]
"""Returns the factors on the device of an array, and in the precision of its arithmetic."""


def launches(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    near: Near | None,
    skipped: Array,
    hyper: Hyperparameters,
    kept: Kept,
) -> list[Launch]:
    """Return the launches that update all variables and slots.

    `skipped` is the number of steps that the devices have left out, if they decide that.
    """
    tally = cast("Tally | None", parameters[0].plans.tally if hyper.nonfinite == "skip" else None)
    if kept.captured is not None:
        kept.captured.count(hyper, tally)
    step = attempted(hyper, tally)
    found, listings = _sorted(parameters, gradients, hyper, kept)
    for members in _groups(parameters, gradients):
        group, first = [parameters[i] for i in members], gradients[members[0]]
        array = group[0].variable.array
        with array.device:
            factors = None if near is None else near(array)
            left_out = on(array.device, skipped) if hyper.nonfinite == "skip" else None
            given = Given(factors, left_out, step, hyper, kept)
            if isinstance(first, SPARSE):
                found += compact_sparse.launches(group[0], members[0], first, listings.get(members[0]), given)
            else:
                dense = [gradients[i] for i in members]
                found += compact_dense.launches(group, members, dense, len(parameters), given)
    return found


def _sorted(
    parameters: Sequence[Updatable], gradients: Sequence[Gradient], hyper: Hyperparameters, kept: Kept
) -> tuple[list[Launch], dict[int, Listing]]:
    """Return the launches that sort what gradients of rows list, and these gradients by their positions."""
    by_device: dict[int, list[Rows]] = {}
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        if isinstance(gradient, IndexedSlices) and gradient.values.size:
            array = paired(parameter.variable.array, hyper)
            variant, numbers = variant_of(array, hyper, None, None), hyper.numbers_of(parameter.multipliers)
            own = Rows(i, parameter, gradient, None, variant, [], numbers)
            by_device.setdefault(array.data.device_id, []).append(own)
    found: list[Launch] = []
    listings: dict[int, Listing] = {}
    for device, listed in by_device.items():
        with cupy.cuda.Device(device):
            launched, sorted_here = rows.listings(listed, hyper, kept)
        found += launched
        listings |= sorted_here
    return found, listings


def _groups(parameters: Sequence[Updatable], gradients: Sequence[Gradient]) -> list[list[int]]:
    """Return the positions of variables of one device and dtype with dense gradients together, others alone."""
    alike: dict[Any, list[int]] = {}
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        array = parameter.variable.array
        key = i if isinstance(gradient, SPARSE) else (array.data.device_id, array.dtype)
        alike.setdefault(key, []).append(i)
    return list(alike.values())
