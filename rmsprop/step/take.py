"""The order of a step: listed, aggregated, checked, read, given its slots, judged, taken and counted.

Steps with replicas go through the same stages, and agree with each other between them; see `rmsprop.distribute`.
"""

import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rmsprop.backends import Gradient, Tally
from rmsprop.formula import Hyperparameters
from rmsprop.settings.checks import Pairs, Transformer
from rmsprop.settings.rows import captured
from rmsprop.settings.settings import Settings
from rmsprop.state.parameters import Parameter, refuse_repetition
from rmsprop.state.state import State
from rmsprop.step import gradients, nonfinite, slots
from rmsprop.step.capturing import Captured, check_capturable
from rmsprop.step.groups import Group, by_backend, factored, is_captured, update
from rmsprop.step.journal import reserve_stack
from rmsprop.variables.observers import tapes, tell_tapes
from rmsprop.variables.variable import Variable


class Plan(NamedTuple):
    """A step that has passed all checks, of which the slots may still be missing."""

    variables: list[Any]
    """As the caller passes them."""
    given: list[Any]
    """The gradients as they were given, or as the caller's functions have left them."""
    parameters: list[Parameter]
    gradients: list[Gradient]
    groups: list[Group]
    """Parameters and gradients by their backends."""
    hyper: Hyperparameters
    will_be_captured: bool
    """Whether the update is recorded in a graph, to be replayed later."""


def take(settings: Settings, given: Iterable[Any], aggregate: bool) -> Variable | None:
    """Take one step without replicas; see `rmsprop.RMSprop.apply_gradients`."""
    state, values = settings.state, settings.values
    aggregator, functions = values["gradient_aggregator"], values["gradient_transformers"]
    if aggregator is None and not functions:
        if replayed(settings, given):
            return state.iterations
        if gradients.has_trees(given):
            given = gradients.pairs(given)
            if replayed(settings, given):
                return state.iterations
    if aggregator is not None and aggregate:
        functions = (aggregator, *functions)
    plan = planned(settings, given, functions)
    if plan is None:
        return None
    if plan.will_be_captured:
        check_capturable(plan.groups, plan.given, settings.slots, plan.hyper)
    decided_here, hyper = nonfinite.divided(plan.groups, plan.hyper)
    slots.complete(settings, plan.parameters)  # may fail, and so comes before a device counts that it is left out
    groups = factored(plan.groups, hyper)
    if decided_here and (position := nonfinite.first_of_groups(groups, plan.hyper)) is not None:
        leave_out(settings, position, plan.variables[position])
        return state.iterations
    if tapes:
        reserve_stack()  # what they do when they are told, after the step, is not known here
    refresh = update(groups, hyper)
    tally = tally_of(state) if hyper.nonfinite == "skip" else None
    if refresh is not None:
        state.iterations.tally = tally
        state.parameters.captured.append(Captured(plan.variables, captured(plan.hyper), refresh))
        return state.iterations
    state.iterations.take(tally)
    if tapes:
        tell_tapes(*plan.variables)
    return state.iterations


def replayed(settings: Settings, given: Any) -> bool:
    """Take the step by what the backend has kept of an earlier one, if all is as it was then."""
    state = settings.state
    replay, needed = state.parameters.replay_of(given), settings.slots
    hyper = settings.constant
    accepted = None if replay is None else replay.accept(given, needed, hyper)
    if replay is None or accepted is None:
        return False
    if hyper is None:  # to read the settings may run the user's code, after which all may be different
        hyper = settings.read(step_number(settings))
        accepted = replay.accept(given, needed, hyper)
        if accepted is None or needed is not settings.slots or hyper.overwrites:
            return False
    if tapes:
        reserve_stack()
    position = replay.step(accepted, hyper)
    if position is not None:
        leave_out(settings, position, given[position][1])
        return True
    state.iterations.take(None if hyper.nonfinite != "skip" else tally_of(state))
    if tapes:
        tell_tapes(*[variable for _, variable in given])
    return True


def tally_of(state: State) -> Tally | None:
    """Return what knows of steps that devices leave out, if there is anything, to be read by the iterations."""
    tally = state.parameters.plans.tally
    if tally is not None and state.iterations.owner is None:
        state.iterations.owner = weakref.ref(state)
    return tally


def planned(settings: Settings, given: Any, functions: Sequence[Transformer]) -> Plan | None:
    """Check everything that can be checked before slots are created; None if there are no variables."""
    pairs = gradients.pairs(given)
    if pairs and functions:
        pairs = transformed(settings, pairs, functions)
    if not pairs:
        return None
    parameters, grads = checked(settings, pairs)
    groups = by_backend(parameters, grads)
    will_be_captured = is_captured(groups)
    counts_there = settings.values["nonfinite"] == "skip" and nonfinite.can_be_left_to_backend(groups)
    hyper = settings.read(step_number(settings, is_needed=not will_be_captured, rounds=not counts_there))
    if settings.constant is None:  # to read the settings may have run the user's code, after which all may differ
        parameters, grads = checked(settings, pairs)
        groups = by_backend(parameters, grads)
    given, variables = [gradient for gradient, _ in pairs], [variable for _, variable in pairs]
    return Plan(variables, given, parameters, grads, groups, hyper, will_be_captured)


def transformed(settings: Settings, pairs: Pairs, functions: Sequence[Transformer]) -> Pairs:
    """Apply the caller's functions, to pairs that have passed the checks."""
    checked(settings, pairs)
    for function in functions:
        pairs = gradients.pairs(function(pairs))
    return pairs


def checked(settings: Settings, pairs: Pairs) -> tuple[list[Parameter], list[Gradient]]:
    """Return the parameters, which may still lack slots, and the gradients in their final form."""
    known, validate = settings.state.parameters, settings.values["validate"]
    parameters, grads = [], []
    for position, (gradient, variable) in enumerate(pairs):
        parameter = known.obtain(variable, position)
        array = parameter.variable.array
        if (
            not (  # in a steady step, this is all that a gradient is checked for
                type(gradient) is type(array)
                and gradient.shape == parameter.shape
                and gradient.dtype == array.dtype
            )
            or parameter.backend.adapts_gradients
        ):
            gradient = gradients.checked(gradient, parameter, position, validate)
        parameters.append(parameter)
        grads.append(gradient)
    if len(pairs) > 1 and len({id(p.key) for p in parameters}) < len(pairs):
        refuse_repetition(parameters)
    known.check_joining(parameters)
    return parameters, grads


def step_number(settings: Settings, is_needed: bool = True, rounds: bool = True) -> int:
    """Return the number of steps so far; if the settings depend on it, wait until it is certain.

    A device that leaves out steps knows by itself how many when it `rounds` state in fewer bits.
    """
    iterations = settings.state.iterations
    if is_needed and settings.depends_on_step(rounds):
        iterations.settle()
    return int(iterations.count)


def leave_out(settings: Settings, position: int, variable: Any) -> None:
    """Count a step that is not taken, or raise the error for the gradient that forbids it."""
    if settings.values["nonfinite"] == "raise":
        raise nonfinite.error_of(position, variable)
    settings.state.iterations.skip()
