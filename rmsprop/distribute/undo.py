"""Copies of what a step changes before it is certain, to put them back if another rank fails meanwhile."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rmsprop.arrays import is_updated_in_place, on_device
from rmsprop.parameters import Parameter
from rmsprop.variable import Variable


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
        self._copies: list[Any] | None = None

    def keep(self) -> None:
        """Copy the present values."""
        if self._copies is None:
            self._copies = [_copy(v.array, self._rows) for v in self._variables]
            return
        for k, variable in enumerate(self._variables):
            if is_updated_in_place(variable.array):
                with on_device(variable.array):
                    self._copies[k][...] = variable.array[self._rows]
            else:
                self._copies[k] = variable.array

    def undo(self) -> None:
        """Put the values back that were kept last."""
        for variable, copy in zip(self._variables, self._copies or (), strict=False):
            if self._rows is ...:
                variable.assign(copy)
            else:
                variable.array[self._rows] = copy


@contextmanager
def undoing() -> Iterator[list[Journal]]:
    """Provide a list for journals; if an exception passes, put back what they have kept."""
    journals: list[Journal] = []
    try:
        yield journals
    except BaseException:
        for journal in journals:
            journal.undo()
        raise


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Provide a list that collects interrupts, by their numbers, instead of raising ``KeyboardInterrupt``.

    A step is not to be left half done, nor taken by the other ranks alone.
    """
    interrupts: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is None:
        yield interrupts
        return
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)


def _copy(array: Any, rows: Any) -> Any:
    if not is_updated_in_place(array):
        return array
    with on_device(array):
        return array[rows].copy()
