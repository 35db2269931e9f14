"""The step itself: parameters and gradients are handed to their backends, all or none of them."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from rmsprop import clipping
from rmsprop.arrays import Array, device, is_on_host, namespace, on_device
from rmsprop.backends import Backend, Factors, Gradient, Refresh
from rmsprop.dtypes import name_of
from rmsprop.formula import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.journal import Journal, reserve_stack
from rmsprop.parameters import Parameter
from rmsprop.variable import Variable


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


class Captured(NamedTuple):
    """A step that has been captured in a graph."""

    variables: Sequence[Variable | Array]
    fixed: dict[str, Any]
    """What its replays have in common of the hyperparameters."""
    refresh: Refresh


FIXED = ("centered", "clipvalue", "clipnorm", "global_clipnorm", "complex_as_real", "nonfinite", "loss_scale")


def fixed(hyper: Hyperparameters) -> dict[str, Any]:
    """Return the hyperparameters that all replays of a captured step share."""
    return {"having momentum": hyper.momentum is not None, **{name: getattr(hyper, name) for name in FIXED}}


def is_captured(groups: Sequence[Group]) -> bool:
    """Let the backends check a step; tell whether one of them will capture it, to be replayed later."""
    return any([g.backend.check_step(g.parameters, g.gradients, g.positions) for g in groups])


def check_capturable(
    groups: Sequence[Group], given: Sequence[object], needed: Sequence[str], hyper: Hyperparameters
) -> None:
    """Raise ``RuntimeError`` unless a captured step does the same as one that is taken.

    Parameters
    ----------
    groups : sequence of Group
    given : sequence
        The gradients as the user gave them: a copy would be gone by the time of the replay.
    needed : sequence of str
        The names of the slots.
    hyper : Hyperparameters
    """
    parameters = [p for group in groups for p in group.parameters]
    gradients = [g for group in groups for g in group.gradients]
    reasons = [
        ("all variables must be CuPy arrays", len(groups) > 1),
        ("call build(var_list) before, or take a step", not all(p.slots.keys() >= {*needed} for p in parameters)),
        ("loss_scale changes from step to step, which a graph can't follow", hyper.loss_scale != 1.0),
        ("nonfinite='raise' would have to wait for the device", hyper.nonfinite == "raise"),
        ("variables can't have constraints", any(p.variable.constraint is not None for p in parameters)),
        (
            "gradients must be dense arrays with the dtype of their variables",
            any(isinstance(g, IndexedSlices) for g in gradients) or {*map(id, gradients)} != {*map(id, given)},
        ),
    ]
    for reason, is_broken in reasons:
        if is_broken:
            raise RuntimeError(f"A step can't be captured in a graph: {reason}.")


def clipped(groups: list[Group], hyper: Hyperparameters) -> list[Group]:
    """Return the groups with the factors of their gradients, as far as there are any; nothing is changed yet."""
    if not hyper.clips_by_norm and hyper.nonfinite == "propagate" and hyper.loss_scale == 1.0:
        return groups
    if len(groups) == 1 and groups[0].backend.makes_factors:
        factors = groups[0].backend.factors(groups[0].parameters, groups[0].gradients, hyper)
        return [groups[0]._replace(factors=factors, magnitudes=factors.magnitudes)]
    if not hyper.clips_by_norm:
        return [group._replace(factors=_inverse(group, hyper)) for group in groups]
    found = clipping.clippings([_measure(group, hyper) for group in groups], hyper)
    return [g._replace(factors=c.factors, magnitudes=c.magnitudes) for g, c in zip(groups, found, strict=True)]


def _measure(group: Group, hyper: Hyperparameters) -> clipping.Measure:
    """Return how to measure the gradients of a group."""
    squared = partial(group.backend.squared_norms, group.gradients, hyper)
    arrays = [p.variable.array for p in group.parameters]
    may_be_double = is_on_host(arrays[0]) or any([name_of(a.dtype) in ("float64", "complex128") for a in arrays])
    return clipping.Measure(squared, may_be_double)


def _inverse(group: Group, hyper: Hyperparameters) -> Array:
    return clipping.inverse(group.parameters[0].variable.array, len(group.parameters), hyper.loss_scale)


def update(groups: Sequence[Group], hyper: Hyperparameters) -> Refresh | None:
    """Let each backend update its variables, then apply the constraints.

    Returns what refreshes the step if it has only been captured, which one backend does alone.

    If that fails, for instance in a constraint, all is undone. Arrays that are updated in place are copied for
    this only if there is a constraint: their backends check before they begin, and come last.
    """
    has_constraint = any([p.variable.constraint for group in groups for p in group.parameters])
    take = prepared(groups, hyper)
    if len(groups) == 1 and not has_constraint:
        return take()
    parameters = [p for group in groups for p in group.parameters]
    journal = Journal([p for p in parameters if has_constraint or not p.backend.in_place])
    journal.keep()
    reserve_stack()
    try:
        take()
        for variable in [p.variable for p in parameters]:
            if variable.constraint is not None:
                with on_device(variable.array):
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
