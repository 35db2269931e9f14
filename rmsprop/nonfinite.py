"""Gradients that are not finite: found before a step changes anything."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rmsprop.arrays import Array, namespace, on_device, to_numpy
from rmsprop.formula import Hyperparameters
from rmsprop.groups import Group
from rmsprop.parameters import described


def divided(groups: Sequence[Group], hyper: Hyperparameters) -> tuple[bool, Hyperparameters]:
    """Tell whether the gradients are to be looked at here; return what the backends are given.

    A backend that makes factors leaves out steps by itself, so that nobody waits for its device. But errors
    and constraints, and those of other libraries in the step, need to know.
    """
    is_left_to_backend = (
        hyper.nonfinite == "skip"
        and len(groups) == 1
        and groups[0].backend.makes_factors
        and all([p.variable.constraint is None for p in groups[0].parameters])
    )
    if hyper.nonfinite == "propagate" or is_left_to_backend:
        return False, hyper
    return True, hyper._replace(nonfinite="propagate")


def first_of_groups(groups: Sequence[Group], hyper: Hyperparameters) -> int | None:
    """Return where the first gradient that is not finite stands in the step, or None; nothing is changed."""
    suspects = [group for group in groups if not _are_finite(group.magnitudes, hyper)]
    firsts = [(group, group.backend.first_nonfinite(group.gradients)) for group in suspects]
    found = [group.positions[k] for group, k in firsts if k is not None]
    if found:
        return min(found)
    return _first_beyond(
        [pair for group in suspects for pair in zip(group.positions, _listed(group.magnitudes), strict=False)]
    )


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
    if _are_finite(magnitudes, hyper):
        return None
    position = find()
    if position is None and magnitudes is not None:
        return _first_beyond(enumerate(_listed(magnitudes)))
    return position


def _are_finite(magnitudes: Array | None, hyper: Hyperparameters) -> bool:
    """Tell whether gradients are known to be finite by their norms, before which infinities were not clipped."""
    if magnitudes is None or hyper.clipvalue is not None:
        return False
    with on_device(magnitudes), np.errstate(all="ignore"):
        xp = namespace(magnitudes)
        return math.isfinite(float(xp.sum(magnitudes))) or bool(xp.all(xp.isfinite(magnitudes)))


def _listed(magnitudes: Array | None) -> list[float]:
    return [] if magnitudes is None else to_numpy(magnitudes).tolist()


def _first_beyond(norms: Iterable[tuple[int, float]]) -> int | None:
    """Return the position of the first norm that is infinite or, if none is, of the first that is not known."""
    numbers = list(norms)
    infinite = [position for position, norm in numbers if math.isinf(norm)]
    return min(infinite or [position for position, norm in numbers if math.isnan(norm)], default=None)


def error_of(position: int, variable: Any) -> FloatingPointError:
    """Return the error for a gradient that is not finite."""
    return FloatingPointError(
        f"Gradient of variable {position} {described(variable)}: it has a NaN or an infinity, or is clipped by "
        f"a norm beyond its dtype; expected finite numbers, since nonfinite='raise'."
    )
