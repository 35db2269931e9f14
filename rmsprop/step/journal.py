"""Copies of what a step changes before it is certain, to put them back if the rest of it fails."""

from collections.abc import Sequence
from typing import Any

from rmsprop.arrays.libraries import Array, has_strides, namespace, unrecorded
from rmsprop.backends import is_updated_in_place
from rmsprop.state.parameters import Parameter
from rmsprop.variables.observers import tapes, tell_tapes
from rmsprop.variables.variable import Variable

FRAMES = 60
"""Calls within each other that are enough to put back an array of any library, or to tell all tapes."""


class Journal:
    """What variables and slots were; its memory is used again.

    Parameters
    ----------
    parameters : sequence of Parameter
    rows : array of integers, optional
        The rows that are going to change, if not all.
    """

    def __init__(self, parameters: Sequence[Parameter], rows: Any = ...) -> None:
        self._variables: list[Variable] = [v for p in parameters for v in (p.variable, *p.slots.values())]
        self._rows = rows
        self._copies: list[list[Array]] | None = None

    def keep(self) -> None:
        """Copy the present values, of arrays that are updated in place; others are kept themselves."""
        if self._copies is None:
            self._copies = [[_copied(a, self._rows) for a in _arrays(v)] for v in self._variables]
            return
        for k, variable in enumerate(self._variables):
            for j, array in enumerate(_arrays(variable)):
                if is_updated_in_place(array):
                    with unrecorded(array):
                        self._copies[k][j][...] = array[self._rows]
                else:
                    self._copies[k][j] = array

    def undo(self) -> None:
        """Put the values back that were kept last."""
        for variable, copies in zip(self._variables, self._copies or (), strict=False):
            for array, copy in zip(_arrays(variable), copies, strict=True):
                if is_updated_in_place(array):
                    with unrecorded(array):
                        array[self._rows] = copy
                else:
                    variable.array = copy
        if tapes:
            tell_tapes(*self._variables)


def reserve_stack(frames: int = FRAMES) -> None:
    """Raise ``RecursionError`` now rather than half way through something that takes so many calls at most."""
    if frames > 0:
        reserve_stack(frames - 1)


def _arrays(variable: Variable) -> Sequence[Array]:
    """Return the arrays that a variable is kept in, which are codes and scales of a slot in a smaller dtype."""
    parts = getattr(variable, "parts", None)
    return [variable.array] if parts is None else list(parts.values())


def _copied(array: Array, rows: Any) -> Array:
    """Return a copy of what is going to change of an array; an array that is replaced itself."""
    if not is_updated_in_place(array):
        return array
    with unrecorded(array):
        if has_strides(array):
            return array[rows].copy()
        return namespace(array).asarray(array[rows], copy=True)
