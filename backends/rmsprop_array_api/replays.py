"""Compiled steps over a list of variables, and what takes them again without all of the checks."""

from collections.abc import Sequence
from typing import Any
from weakref import ref

import numpy as np

from rmsprop.arrays.libraries import Array, refuse_traced
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters, VariableState
from rmsprop_array_api import compiled


class Replayed:
    """A compiled step over a list of variables; a `rmsprop.backends.Replay`.

    Parameters
    ----------
    parameters : sequence of Updatable
    slots : tuple of str
        The names of those that the step uses.
    """

    def __init__(self, parameters: Sequence[Updatable], slots: tuple[str, ...]) -> None:
        self.parameters, self.slots = parameters, slots
        self._arrays = [_described(parameter.variable.array) for parameter in parameters]
        self._hyper: Hyperparameters | None = None
        self._call: compiled.Call

    def __len__(self) -> int:
        return len(self.parameters)

    def accept(
        self, given: list[Any], slots: tuple[str, ...], hyper: Hyperparameters | None
    ) -> list[Array] | None:
        """Return the gradients if all is as it was, and they need no clipping, else None."""
        if slots != self.slots or len(given) != len(self.parameters) or (hyper is not None and _clips(hyper)):
            return None
        gradients = []
        for pair, parameter, expected in zip(given, self.parameters, self._arrays, strict=True):
            if type(pair) is not tuple or len(pair) != 2 or pair[1] is not parameter.key:
                return None
            variable = parameter.variable
            if variable.constraint is not None or not variable.trainable:
                return None
            if not _described(variable.array) == expected == _described(pair[0]):
                return None
            gradients.append(pair[0])
        return gradients

    @np.errstate(all="ignore")  # of numbers that single precision can't hold
    def step(self, gradients: Sequence[Array], hyper: Hyperparameters) -> None:
        """Take a step in one compiled function, which may use the memory of variables and slots."""
        parameters = self.parameters
        if hyper is not self._hyper:
            self._call, self._hyper = compiled.call(parameters, hyper), hyper
        states = [compiled.own_state(parameter, hyper) for parameter in parameters]
        new = compiled.step(states, gradients, self._call)
        # If the step is traced, nothing has been computed, and no memory given away.
        refuse_traced(new[0].variable, "the step of variable {} would be", parameters[0])
        try:
            replace(parameters, new)
        except BaseException:  # an interrupt; what was before may be gone
            replace(parameters, new)
            raise
        for parameter, state in zip(parameters, new, strict=True):
            parameter.notes = [None if array is None else ref(array) for array in state]


def _described(array: Any) -> tuple[type, Any, Any]:
    """Return what an array has to have in common with those of earlier steps."""
    return type(array), getattr(array, "shape", None), getattr(array, "dtype", None)


def _clips(hyper: Hyperparameters) -> bool:
    return (
        hyper.clipvalue is not None
        or hyper.clips_by_norm
        or hyper.loss_scale != 1.0
        or hyper.nonfinite != "propagate"
    )


def taken(parameters: Sequence[Updatable], gradients: Sequence[Array], hyper: Hyperparameters) -> None:
    """Take a step with gradients that have been clipped, and keep what takes it again."""
    first = parameters[0]
    kept: Replayed | None = first.plans.get(id(first.key))
    if kept is None or kept.slots != hyper.slots or [*map(id, kept.parameters)] != [*map(id, parameters)]:
        kept = Replayed(parameters, hyper.slots)
        first.plans.keep(id(first.key), kept)
    kept.step(gradients, hyper)


def replace(parameters: Sequence[Updatable], new: Sequence[VariableState]) -> None:
    """Put the arrays of a step into variables and slots."""
    for parameter, state in zip(parameters, new, strict=True):
        parameter.variable.array = state.variable
        for name, array in zip(VariableState._fields[1:], state[1:], strict=True):
            if array is not None:
                parameter.slots[name].array = array
