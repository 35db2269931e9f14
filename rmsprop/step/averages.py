"""Averages of variables: put in their place, for a while or for good."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rmsprop.arrays.libraries import copied
from rmsprop.backends import is_updated_in_place
from rmsprop.formula import AVERAGE
from rmsprop.state.parameters import Parameter
from rmsprop.state.state import State


def overwrite(parameters: Sequence[Parameter]) -> None:
    """Set variables to their averages."""
    for parameter in parameters:
        parameter.variable.assign(parameter.slots[AVERAGE].array)


@contextmanager
def swapped(state: State) -> Iterator[None]:
    """Set all variables to their averages, and in the end back; see `rmsprop.RMSprop.swapped`."""
    with state.lock:
        state.check_idle("swapped")
        parameters = [p for p in state.parameters if AVERAGE in p.slots and not p.is_gone]
        if not parameters:
            raise ValueError("no variable is averaged: expected use_ema=True, and a step or build before.")
        kept = [_copied(p) for p in parameters]
        state.occupied = "its variables are averages for now: leave `with opt.swapped()` before the next step."
        overwrite(parameters)
    try:
        yield
    finally:
        with state.lock:
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.variable.assign(value)
            state.occupied = None


def _copied(parameter: Parameter) -> object:
    """Return the value of a variable, as a copy if its array will change."""
    array = parameter.variable.array
    return copied(array) if is_updated_in_place(array) else array
