"""Multipliers of learning rate and weight decay: given to variables, or to all whose names fit."""

import re
from collections.abc import Iterable, Sequence

from rmsprop.formula import Multipliers
from rmsprop.state.parameters import Parameter
from rmsprop.state.state import State


def multiply(
    state: State, parameters: Iterable[Parameter], learning_rate: float | None, weight_decay: float | None
) -> None:
    """Give parameters their multipliers, or leave those that are None."""
    for parameter in parameters:
        given = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        changed = {name: value for name, value in given.items() if value is not None}
        give(state, parameter, parameter.multipliers._replace(**changed))


def give(state: State, parameter: Parameter, multipliers: Multipliers) -> None:
    """Give a parameter other multipliers, which plans depend on."""
    parameter.multipliers, parameter.plan = multipliers, None
    state.parameters.plans.clear()


def exclude(state: State, patterns: Sequence[str]) -> None:
    """Exclude all variables from weight decay in whose names a pattern is found, those to come as well."""
    state.undecayed = [*state.undecayed, *patterns]
    for parameter in state.parameters:
        join(state, parameter)


def join(state: State, parameter: Parameter) -> None:
    """Exclude a parameter from weight decay, if its name asks for it."""
    if any([re.search(pattern, parameter.variable.name) for pattern in state.undecayed]):
        give(state, parameter, parameter.multipliers._replace(weight_decay=0.0))
