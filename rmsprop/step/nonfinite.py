"""Gradients that are not finite: found before a step changes anything."""

from collections.abc import Sequence
from typing import Any

from rmsprop import norms
from rmsprop.formula import Hyperparameters
from rmsprop.step.groups import Group
from rmsprop.variables.variable import described


def divided(groups: Sequence[Group], hyper: Hyperparameters) -> tuple[bool, Hyperparameters]:
    """Tell whether the gradients are to be looked at here; return what the backends are given.

    A backend that makes factors leaves out steps by itself, so that nobody waits for its device. But errors
    and constraints, and those of other libraries in the step, need to know.
    """
    is_left_to_backend = hyper.nonfinite == "skip" and not hyper.overwrites and can_be_left_to_backend(groups)
    if hyper.nonfinite == "propagate" or is_left_to_backend:
        return False, hyper
    return True, hyper._replace(nonfinite="propagate")


def can_be_left_to_backend(groups: Sequence[Group]) -> bool:
    """Tell whether a backend is able to leave out the step by itself, and nobody else needs to know."""
    backend, parameters = groups[0].backend, groups[0].parameters
    return len(groups) == 1 and backend.makes_factors and all([p.variable.constraint is None for p in parameters])


def first_of_groups(groups: Sequence[Group], hyper: Hyperparameters) -> int | None:
    """Return where the first gradient that is not finite stands in the step, or None; nothing is changed."""
    suspects = [group for group in groups if not norms.are_finite(group.magnitudes, hyper)]
    firsts = [(group, group.backend.first_nonfinite(group.gradients)) for group in suspects]
    found = [group.positions[k] for group, k in firsts if k is not None]
    if found:
        return min(found)
    return norms.first_beyond(
        [pair for group in suspects for pair in zip(group.positions, norms.listed(group.magnitudes), strict=False)]
    )


def error_of(position: int, variable: Any) -> FloatingPointError:
    """Return the error for a gradient that is not finite."""
    return FloatingPointError(
        f"Gradient of variable {position} {described(variable)}: it has a NaN or an infinity, or is clipped by "
        f"a norm beyond its dtype; expected finite numbers, since nonfinite='raise'."
    )
