"""Gradients that are not finite: found before a step changes anything."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from rmsprop.arrays import Array, detached, namespace, on_device, to_numpy
from rmsprop.backends import Gradient
from rmsprop.formula import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import described
from rmsprop.step import Group


def divided(groups: Sequence[Group], hyper: Hyperparameters) -> tuple[bool, Hyperparameters]:
    """Tell whether the gradients are to be looked at here; return what the backends are given.

    A backend with a function `factors` leaves out steps by itself, so that nobody waits for its device. But errors
    and constraints, and those of other libraries in the step, need to know.
    """
    is_left_to_backend = (
        hyper.nonfinite == "skip"
        and len(groups) == 1
        and hasattr(groups[0].backend, "factors")
        and all([p.variable.constraint is None for p in groups[0].parameters])
    )
    if hyper.nonfinite == "propagate" or is_left_to_backend:
        return False, hyper
    return True, hyper._replace(nonfinite="propagate")


def first_of_groups(groups: Sequence[Group], hyper: Hyperparameters) -> int | None:
    """Return where the first gradient that is not finite stands in the step, or None; nothing is changed."""
    found: list[int] = []
    for group in groups:
        find = getattr(group.backend, "first_nonfinite", _first_nonfinite)
        position = first(group.magnitudes, hyper, partial(find, group.gradients))
        if position is not None:
            found.append(group.positions[position])
    return min(found, default=None)


@np.errstate(all="ignore")
def first(magnitudes: Array | None, hyper: Hyperparameters, find: Callable[[], int | None]) -> int | None:
    """Return the position of the first gradient that is not finite, or is clipped by a norm beyond its dtype.

    Norms are computed in double precision where there is one: those of finite gradients are infinite from 1.8e308
    on, or in a library without it, as JAX has by default, from 3.4e38 on.

    Parameters
    ----------
    magnitudes : array, shape (n,), or None
        See `rmsprop.clipping.Clipping`, if there are any: they save to read the gradients again.
    hyper : Hyperparameters
    find : callable
        Returns the position of the first gradient with a NaN or an infinity, or None.
    """
    if magnitudes is None:
        return find()
    with on_device(magnitudes):
        xp = namespace(magnitudes)
        has_norms = math.isfinite(float(xp.sum(magnitudes))) or bool(xp.all(xp.isfinite(magnitudes)))
    if has_norms and hyper.clipvalue is None:  # which makes numbers of infinities
        return None
    position = find()
    if position is None and not has_norms:
        position = int(np.argmin(np.isfinite(to_numpy(magnitudes))))
    return position


def _first_nonfinite(gradients: Sequence[Gradient]) -> int | None:
    values = [detached(g.values if isinstance(g, IndexedSlices) else g) for g in gradients]
    xp = namespace(values[0])
    are_finite = xp.stack([xp.all(xp.isfinite(v)) for v in values])
    return None if bool(xp.all(are_finite)) else int(xp.argmin(xp.astype(are_finite, xp.int32)))


def error_of(position: int, variable: Any) -> FloatingPointError:
    """Return the error for a gradient that is not finite."""
    return FloatingPointError(
        f"Gradient of variable {position} {described(variable)}: it has a NaN or an infinity, or is clipped by "
        f"a norm beyond its dtype; expected finite numbers, since nonfinite='raise'."
    )
