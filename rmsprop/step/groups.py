"""The parameters of a step and their gradients, by backend: clipped, updated all or none, and put back."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rmsprop import norms
from rmsprop.arrays.dtypes import name_of
from rmsprop.arrays.libraries import Array, device, is_on_host, namespace, unrecorded
from rmsprop.backends import Backend, Factors, Gradient, Refresh
from rmsprop.formula import Hyperparameters
from rmsprop.state.parameters import Parameter
from rmsprop.step.averages import overwrite
from rmsprop.step.journal import Journal, reserve_stack


class Group(NamedTuple):
    """The parameters of one backend, and their gradients."""

    backend: Backend
    positions: Sequence[int]
    """Where they stand among all that the step is given."""
    parameters: Sequence[Parameter]
    gradients: Sequence[Gradient]
    factors: Factors | Array | None = None
    """What clips the gradients by norm."""
    magnitudes: Array | None = None
    """Numbers that are finite if the gradients and the norms that they are clipped by are, if there are any."""


def by_backend(parameters: Sequence[Parameter], gradients: Sequence[Gradient]) -> list[Group]:
    """Split parameters and gradients by backend, and by library and device where it asks for that."""
    backend = parameters[0].backend
    is_one = len(parameters) == 1 or all([p.backend is backend for p in parameters])
    if is_one and (len(parameters) == 1 or not backend.per_device):
        return [Group(backend, range(len(parameters)), parameters, gradients)]
    members: dict[Any, list[int]] = {}
    for position, parameter in enumerate(parameters):
        place = _place(parameter.variable.array) if parameter.backend.per_device else None
        members.setdefault((id(parameter.backend), place), []).append(position)
    return [
        Group(parameters[ids[0]].backend, ids, [parameters[i] for i in ids], [gradients[i] for i in ids])
        for ids in members.values()
    ]


def _place(array: Array) -> Hashable:
    """Return library and device of an array."""
    return namespace(array).__name__, device(array)


def is_captured(groups: Sequence[Group]) -> bool:
    """Let the backends check a step; tell whether one of them will capture it, to be replayed later."""
    return any([g.backend.check_step(g.parameters, g.gradients, g.positions) for g in groups])


def factored(groups: list[Group], hyper: Hyperparameters) -> list[Group]:
    """Return the groups with the factors of their gradients, as far as there are any; nothing is changed yet."""
    if not hyper.clips_by_norm and hyper.nonfinite == "propagate" and hyper.loss_scale == 1.0:
        return groups
    if len(groups) == 1 and groups[0].backend.makes_factors:
        factors = groups[0].backend.factors(groups[0].parameters, groups[0].gradients, hyper)
        return [groups[0]._replace(factors=factors, magnitudes=factors.magnitudes)]
    if not hyper.clips_by_norm:
        return [group._replace(factors=_inverse(group, hyper)) for group in groups]
    found = norms.clippings([_measure(group, hyper) for group in groups], hyper)
    return [g._replace(factors=c.factors, magnitudes=c.magnitudes) for g, c in zip(groups, found, strict=True)]


def _measure(group: Group, hyper: Hyperparameters) -> norms.Measure:
    """Return how to measure the gradients of a group."""
    squared = partial(group.backend.squared_norms, group.gradients, hyper)
    arrays = [p.variable.array for p in group.parameters]
    may_be_double = is_on_host(arrays[0]) or any([name_of(a.dtype) in ("float64", "complex128") for a in arrays])
    return norms.Measure(squared, may_be_double)


def _inverse(group: Group, hyper: Hyperparameters) -> Array:
    return norms.inverse(group.parameters[0].variable.array, len(group.parameters), hyper.loss_scale)


def update(groups: Sequence[Group], hyper: Hyperparameters) -> Refresh | None:
    """Let each backend update its variables, then set them to their averages if it is time, apply constraints.

    Returns what refreshes the step if it has only been captured, which one backend does alone.

    If that fails, for instance in a constraint, all is undone. Arrays that are updated in place are copied for
    this only if something follows: their backends check before they begin, and come last.
    """
    is_followed = hyper.overwrites or any([p.variable.constraint for group in groups for p in group.parameters])
    take = prepared(groups, hyper)
    if len(groups) == 1 and not is_followed:
        return take()
    parameters = [p for group in groups for p in group.parameters]
    journal = Journal([p for p in parameters if is_followed or not p.backend.in_place])
    journal.keep()
    reserve_stack()
    try:
        take()
        if hyper.overwrites:
            overwrite(parameters)
        for variable in [p.variable for p in parameters]:
            if variable.constraint is not None:
                with unrecorded(variable.array):
                    variable.assign(variable.constraint(variable.array))
    except BaseException:
        journal.undo()
        raise
    return None


def prepared(groups: Sequence[Group], hyper: Hyperparameters) -> Callable[[], Refresh | None]:
    """Do all of a step without constraints that may fail; return what takes it."""
    if len(groups) == 1:
        group = groups[0]
        return group.backend.prepare(group.parameters, group.gradients, group.factors, hyper)
    rest = [g.backend.prepare(g.parameters, g.gradients, g.factors, hyper) for g in sorted(groups, key=_order)]

    def take() -> None:
        for function in rest:
            function()

    return take


def _order(group: Group) -> tuple[bool, bool]:
    """Sort backends by what can fail: first arrays that are replaced, then those of a device, then NumPy's."""
    return group.backend.in_place, isinstance(group.parameters[0].variable.array, np.ndarray)
