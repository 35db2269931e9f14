"""The step itself: parameters and gradients are handed to their backends, all or none of them."""

from collections.abc import Sequence
from typing import NamedTuple

from rmsprop import clipping
from rmsprop.arrays import Array, is_updated_in_place
from rmsprop.backends import Backend, Gradient, Hyperparameters
from rmsprop.parameters import Parameter
from rmsprop.variable import Variable


class Group(NamedTuple):
    """The parameters of one backend, their gradients, and the factors that clip these by norm."""

    backend: Backend
    parameters: Sequence[Parameter]
    gradients: Sequence[Gradient]
    factors: Array | None


def grouped(parameters: Sequence[Parameter], gradients: Sequence[Gradient], hyper: Hyperparameters) -> list[Group]:
    """Split parameters and gradients by backend, and determine the factors; nothing is changed yet."""
    groups = _by_backend(parameters, gradients)
    if hyper.clipnorm is None and hyper.global_clipnorm is None:
        return groups
    own = getattr(groups[0].backend, "factors", None) if len(groups) == 1 else None
    if own is not None:
        return [groups[0]._replace(factors=own(gradients, hyper))]
    squares = [group.backend.squared_norms(group.gradients, hyper) for group in groups]
    factors = clipping.factors(squares, hyper.clipnorm, hyper.global_clipnorm)
    return [group._replace(factors=factor) for group, factor in zip(groups, factors, strict=True)]


def update(groups: Sequence[Group], hyper: Hyperparameters) -> None:
    """Let each backend update its variables, then apply the constraints.

    If that fails, for instance in a constraint, all is undone. Arrays that are updated in place are copied for
    this only if there is a constraint: their backends check before they begin, and come last.
    """
    has_constraint = any([p.variable.constraint for group in groups for p in group.parameters])
    if len(groups) == 1 and not has_constraint:
        _run(groups[0], hyper)
        return
    parameters = [p for group in groups for p in group.parameters]
    touched = [v for p in parameters for v in (p.variable, *p.slots.values())]
    before = [(v, _kept(v, has_constraint)) for v in touched]
    try:
        for group in sorted(groups, key=lambda group: is_updated_in_place(group.parameters[0].variable.array)):
            _run(group, hyper)
        for variable in [p.variable for p in parameters]:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.array))
    except BaseException:
        for variable, array in before:
            if array is not None:
                variable.assign(array)
        raise


def _run(group: Group, hyper: Hyperparameters) -> None:
    group.backend.update(group.parameters, group.gradients, group.factors, hyper)


def _kept(variable: Variable, has_constraint: bool) -> Array | None:
    """Return what a variable is to be reset to, if need be."""
    if not is_updated_in_place(variable.array):
        return variable.array
    return variable.array.copy() if has_constraint else None


def _by_backend(parameters: Sequence[Parameter], gradients: Sequence[Gradient]) -> list[Group]:
    backend = parameters[0].backend
    if len(parameters) == 1 or all([p.backend is backend for p in parameters]):
        return [Group(backend, parameters, gradients, None)]
    groups: dict[int, Group] = {}
    for parameter, gradient in zip(parameters, gradients, strict=True):
        group = groups.setdefault(id(parameter.backend), Group(parameter.backend, [], [], None))
        group.parameters.append(parameter)  # type: ignore[attr-defined]
        group.gradients.append(gradient)  # type: ignore[attr-defined]
    return list(groups.values())
