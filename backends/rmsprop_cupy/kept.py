"""What the backend keeps about a list of parameters from one step to the next."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np

from rmsprop.parameters import Parameter
from rmsprop_cupy.aliases import Occupied
from rmsprop_cupy.captures import aside, is_captured
from rmsprop_cupy.columns import Column
from rmsprop_cupy.misses import Misses
from rmsprop_cupy.pending import hold

Array = Any


class Kept:
    """The plans of a list of parameters, kept by the first of them; a captured step gets some of its own.

    Parameters
    ----------
    is_captured : bool, default False
        Whether they belong to a captured step.

    Attributes
    ----------
    lists : dict
        For each device and dtype the plan of `rmsprop_cupy.lists`.
    norms : rmsprop_cupy.norms.Plan or None
    misses : Misses or None
        Of the first parameter, if it has had sparse gradients.
    columns : dict of int to Column
        For each device the addresses of the gradients.
    gradients : list
        The arrays that replays of a captured step read: their memory must not be used for anything else.
    """

    def __init__(self, is_captured: bool = False) -> None:
        self.lists: dict[Any, Any] = {}
        self.norms: Any = None
        self.misses: Misses | None = None
        self.gradients: list[Array] = []
        self.columns: dict[int, Column] = {}
        self._is_captured = is_captured
        self._occupied: Occupied | None = None

    def keep(self, gradients: Sequence[Array]) -> None:
        """Let the gradients of a captured step live as long as this."""
        if self._is_captured:
            self.gradients += gradients

    def setup(self) -> AbstractContextManager[None]:
        """Return the context for work that is done once, and not again by each replay."""
        return aside() if self._is_captured else nullcontext()

    def addresses(self, gradients: Sequence[Array]) -> Array:
        """Bring the addresses of all gradients to the current device; return the array there."""
        device = cupy.cuda.runtime.getDevice()
        column = self.columns.get(device)
        if column is None or column.array.size != len(gradients):
            hold(column)
            column = self.columns[device] = Column(len(gradients))
        return column.write(np.array([g.data.ptr for g in gradients], np.uint64))

    def occupied(self, parameters: Sequence[Parameter]) -> Occupied:
        """Return the memory of all variables and slots."""
        if self._occupied is None or not self._occupied.is_of(parameters):
            self._occupied = Occupied(parameters)
        return self._occupied


def kept_of(parameter: Parameter) -> Kept:
    """Return what is kept by a parameter."""
    if parameter.plan is None:
        parameter.plan = Kept()
    kept: Kept = parameter.plan
    return kept


def kept_for_step(parameters: Sequence[Parameter]) -> Kept:
    """Return what a step over a list of parameters uses."""
    is_new = is_captured(parameters[0].variable.array.data.device_id)
    return Kept(is_captured=True) if is_new else kept_of(parameters[0])
