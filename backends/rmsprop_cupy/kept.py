"""Tables and other plans for a list of parameters, kept from one step to the next."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy.launches import numbers
from rmsprop_cupy.source import SCALARS, Variant, real_type
from rmsprop_cupy.streams import Column, aside, hold, is_captured
from rmsprop_cupy.variables import Occupied

COUNT = len(SCALARS)
WORDS = COUNT + (COUNT + 1) // 2
"""Words of 64 bits that the scalars take, in double and in single precision."""


class Captured:
    """The hyperparameters of a step captured in a CUDA graph, on the current device.

    They lie in memory that nothing else writes to, where the graph's replays read them.

    Parameters
    ----------
    hyper : Hyperparameters
        Those of the first replay, if no others are written.
    """

    def __init__(self, hyper: Hyperparameters) -> None:
        self.device = cupy.cuda.Device()
        with aside():
            self._column = Column(WORDS)
            self.refresh(hyper)

    def scalars(self, variant: Variant) -> Array:
        """Return the array of a kernel's scalars."""
        words = self._column.array
        is_double = real_type(variant.dtype) == "double"
        return words[:COUNT].view(cupy.float64) if is_double else words[COUNT:].view(cupy.float32)

    def refresh(self, hyper: Hyperparameters) -> None:
        """Bring the hyperparameters of the next replay to the device, by one asynchronous copy."""
        with self.device:
            self._column.write(_words(hyper))


def _words(hyper: Hyperparameters) -> Host:
    """Return the scalars of the kernels in double and in single precision, in words of 64 bits."""
    words = np.zeros(WORDS, np.uint64)
    words[:COUNT].view(np.float64)[:] = numbers(hyper)
    with np.errstate(all="ignore"):
        words[COUNT:].view(np.float32)[:COUNT] = numbers(hyper)
    return words


class Kept:
    """The plans of a list of parameters; a captured step gets some of its own.

    When it is let go, the memory that it has, and that of the slots, stays until the device is done with it.

    Parameters
    ----------
    length : int
        How many parameters the list has.
    captured : Captured, optional
        The numbers of the step, if it is captured.

    Attributes
    ----------
    lists : dict
        For each device and dtype the `rmsprop_cupy.lists.Table`.
    norms : rmsprop_cupy.norms.Plan or None
    columns : dict of int to Column
        For each device the addresses of the gradients.
    gradients : list
        The arrays that replays of a captured step read: their memory must not be used for anything else.
    """

    def __init__(self, length: int, captured: Captured | None = None) -> None:
        self.lists: dict[Any, Any] = {}
        self.norms: Any = None
        self.columns: dict[int, Column] = {}
        self.gradients: list[Array] = []
        self.captured = captured
        self._length = length
        self._occupied: Occupied | None = None
        self._events: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._length

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        things = list(vars(self).values())
        for event in self._events.values():
            hold(things, event)
        if self.captured is not None:
            with self.captured.device:
                hold(things)

    def used(self) -> None:
        """Take note that what is kept is read by all that the current stream has been given so far."""
        if self.captured is None:
            device = cupy.cuda.runtime.getDevice()
            if device not in self._events:
                self._events[device] = cupy.cuda.Event(disable_timing=True)
            self._events[device].record()

    def scalars(self, variant: Variant, hyper: Hyperparameters) -> tuple[Any, ...]:
        """Return the arguments of a kernel that are numbers, or for a captured step the array of these."""
        return numbers(hyper) if self.captured is None else (self.captured.scalars(variant),)

    def refresh(self, hyper: Hyperparameters) -> None:
        """Bring the hyperparameters of the next replay of a captured step to the device."""
        if self.captured is not None:
            self.captured.refresh(hyper)

    def keep(self, gradients: Sequence[Array]) -> None:
        """Let the gradients of a captured step live as long as this."""
        if self.captured is not None:
            self.gradients += gradients

    def setup(self) -> AbstractContextManager[Any]:
        """Return the context for work that is done once, and not again by each replay."""
        return nullcontext() if self.captured is None else aside()

    def addresses(self, gradients: Sequence[Array]) -> Array:
        """Bring the addresses of all gradients to the current device; return the array there."""
        device = cupy.cuda.runtime.getDevice()
        column = self.columns.get(device)
        if column is None:
            column = self.columns[device] = Column(len(gradients))
        return column.write(np.array([g.data.ptr for g in gradients], np.uint64))

    def occupied(self, parameters: Sequence[Updatable]) -> Occupied:
        """Return the memory of all variables and slots."""
        count = len(parameters) + sum([len(p.slots) for p in parameters])
        if self._occupied is None or len(self._occupied.memory) != count:
            self._occupied = Occupied(parameters)
        return self._occupied


def kept_for_step(parameters: Sequence[Updatable], hyper: Hyperparameters) -> Kept:
    """Return what a step over a list of parameters uses."""
    first = parameters[0]
    device = first.variable.array.device
    if is_captured(device.id):
        with device:
            return Kept(len(parameters), Captured(hyper))
    # A parameter lives as long as the plans of its optimizer: its identity is that of no other.
    key = tuple(map(id, parameters))
    kept: Kept | None = first.plans.get(key)
    if kept is None:
        kept = Kept(len(parameters))
        first.plans.keep(key, kept)
    return kept
