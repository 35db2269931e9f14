"""What the backend keeps about a list of parameters from one step to the next."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np

from rmsprop.parameters import Parameter
from rmsprop_cupy.captures import Captured, aside, is_captured
from rmsprop_cupy.columns import Column
from rmsprop_cupy.misses import Misses

Array = Any


class Kept:
    """The plans of a list of parameters, kept by the first of them; a captured step gets one of its own.

    Attributes
    ----------
    lists : dict
        For each device and dtype the plan of `rmsprop_cupy.lists`.
    norms : rmsprop_cupy.norms.Plan or None
    misses : Misses or None
        Of the first parameter, if it has had sparse gradients.
    captured : Captured or None
        The numbers of the captured step that this belongs to.
    replays : Captured or None
        The numbers of all captured steps of the list.
    gradients : list
        The arrays that replays of a captured step read: their memory must not be used for anything else.
    """

    def __init__(self, captured: Captured | None = None) -> None:
        self.lists: dict[Any, Any] = {}
        self.norms: Any = None
        self.misses: Misses | None = None
        self.captured = captured
        self.replays: Captured | None = None
        self.gradients: list[Array] = []
        self._addresses: dict[int, Column] = {}

    def keep(self, gradients: Sequence[Array]) -> None:
        """Let the gradients of a captured step live as long as the optimizer."""
        if self.captured is not None:
            self.gradients += gradients

    def setup(self) -> AbstractContextManager[None]:
        """Return the context for work that is done once, and not again by each replay."""
        return nullcontext() if self.captured is None else aside()

    def addresses(self, gradients: Sequence[Array]) -> Array:
        """Bring the addresses of all gradients to the current device; return the array there."""
        device = cupy.cuda.runtime.getDevice()
        column = self._addresses.get(device)
        if column is None or column.array.size != len(gradients):
            column = self._addresses[device] = Column(len(gradients))
        return column.write(np.array([g.data.ptr for g in gradients], np.uint64))


def kept_of(parameter: Parameter) -> Kept:
    """Return what is kept by a parameter."""
    if parameter.plan is None:
        parameter.plan = Kept()
    kept: Kept = parameter.plan
    return kept


def kept_for_step(parameters: Sequence[Parameter]) -> Kept:
    """Return what a step over a list of parameters uses."""
    own = kept_of(parameters[0])
    device = parameters[0].variable.array.device
    if not is_captured(device.id):
        return own
    with device, aside():
        own.replays = own.replays or Captured()
    captured = Kept(own.replays)
    own.replays.kept.append(captured)
    return captured
