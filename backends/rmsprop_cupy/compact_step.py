"""One step over a list of variables whose slots are kept in a smaller dtype."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from rmsprop.arrays.libraries import Array
from rmsprop.backends import SPARSE, Gradient, Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import compact_dense, compact_sparse
from rmsprop_cupy.compact_dense import Given
from rmsprop_cupy.counters import Tally, attempted
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.launches import Launch
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
    found: list[Launch] = []
    tally = cast("Tally | None", parameters[0].plans.tally if hyper.nonfinite == "skip" else None)
    if kept.captured is not None:
        kept.captured.count(hyper, tally)
    step = attempted(hyper, tally)
    for members in _groups(parameters, gradients):
        group, first = [parameters[i] for i in members], gradients[members[0]]
        array = group[0].variable.array
        with array.device:
            factors = None if near is None else near(array)
            left_out = on(array.device, skipped) if hyper.nonfinite == "skip" else None
            given = Given(factors, left_out, step, hyper, kept)
            if isinstance(first, SPARSE):
                found += compact_sparse.launches(group[0], members[0], first, given)
            else:
                dense = [gradients[i] for i in members]
                found += compact_dense.launches(group, members, dense, len(parameters), given)
    return found


def _groups(parameters: Sequence[Updatable], gradients: Sequence[Gradient]) -> list[list[int]]:
    """Return the positions of variables of one device and dtype with dense gradients together, others alone."""
    alike: dict[Any, list[int]] = {}
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        array = parameter.variable.array
        key = i if isinstance(gradient, SPARSE) else (array.data.device_id, array.dtype)
        alike.setdefault(key, []).append(i)
    return list(alike.values())
