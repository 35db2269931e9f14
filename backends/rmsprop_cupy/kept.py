"""Tables and other plans for a list of parameters, kept from one step to the next."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array
from rmsprop.backends import Updatable, multipliers_of
from rmsprop.formula import NEUTRAL, Hyperparameters, Multipliers
from rmsprop_cupy.counters import Tally, attempted
from rmsprop_cupy.launches import scalars
from rmsprop_cupy.source import SCALARS, Variant, real_type
from rmsprop_cupy.streams import Column, aside, hold, is_captured
from rmsprop_cupy.variables import Occupied

COUNT = len(SCALARS)


class Scalars:
    """The scalars of kernels in the memory of the current device: for each variable, or for all together.

    Parameters
    ----------
    count : int
        For how many variables they are.
    """

    def __init__(self, count: int) -> None:
        self._doubles = count * COUNT
        self._written: Hyperparameters | None = None
        self._column = Column(self._doubles + (self._doubles + 1) // 2)

    def write(self, hyper: Hyperparameters, multipliers: Sequence[Multipliers]) -> None:
        """Bring the scalars of a step to the device, by one asynchronous copy, unless they are there."""
        if hyper is self._written:
            return
        self._written = hyper
        rows = [(*hyper.numbers_of(each), hyper.clipvalue) for each in multipliers]
        numbers = np.array([[x or 0.0 for x in row] for row in rows])
        words = np.zeros(self._column.array.size, np.uint64)
        words[: self._doubles].view(np.float64)[:] = numbers.reshape(-1)
        with np.errstate(all="ignore"):
            words[self._doubles :].view(np.float32)[: self._doubles] = numbers.reshape(-1)
        self._column.write(words)

    def array(self, variant: Variant) -> Array:
        """Return the array that a kernel is given, in the precision of its arithmetic."""
        words, is_double = self._column.array, real_type(variant.dtype) == "double"
        return (
            words[: self._doubles].view(cupy.float64) if is_double else words[self._doubles :].view(cupy.float32)
        )


class Captured:
    """The scalars of a step captured in a CUDA graph, on the current device.

    They lie in memory that nothing else writes to, where the graph's replays read them.

    Parameters
    ----------
    hyper : Hyperparameters
        Those of the first replay, if no others are written.
    multipliers : sequence of Multipliers
        For each variable, or for all together.
    """

    def __init__(self, hyper: Hyperparameters, multipliers: Sequence[Multipliers]) -> None:
        self.device, self._multipliers = cupy.cuda.Device(), multipliers
        self.step: Array | None = None
        self._count: Column | None = None
        self._tally: Tally | None = None
        with aside():
            self.scalars = Scalars(len(multipliers))
            self.refresh(hyper)

    def count(self, hyper: Hyperparameters, tally: Tally | None) -> None:
        """Let replays read the number of their step, if the device left out none, in an array `step`."""
        with self.device, aside():
            self._count, self._tally = Column(1), tally
            self.step = self._count.array
            self.refresh(hyper)

    def refresh(self, hyper: Hyperparameters) -> None:
        """Bring the scalars of the next replay to the device."""
        with self.device:
            self.scalars.write(hyper, self._multipliers)
            if self._count is not None:
                self._count.write(np.array([attempted(hyper, self._tally)], np.uint64))


class Kept:
    """The plans of a list of parameters; a captured step gets some of its own.

    When it is let go, the memory that it has, and that of the slots, stays until the device is done with it.

    Parameters
    ----------
    length : int
        How many parameters the list has.
    multipliers : sequence of Multipliers, optional
        Theirs, if some are not neutral.
    captured : Captured, optional
        The numbers of the step, if it is captured.

    Attributes
    ----------
    lists : dict
        For each device and dtype the `rmsprop_cupy.lists.Table`.
    norms : rmsprop_cupy.norms.Plan or None
    columns : dict of int to Column
        For each device the addresses of the gradients.
    multiplied : dict of int to Scalars
        For each device the scalars of variables, where they differ.
    rows : dict of int to rmsprop_cupy.rows.Memory
        For each device what sparse gradients are sorted in.
    prepared : int
        How many steps have been prepared.
    gradients : list
        The arrays that replays of a captured step read: their memory must not be used for anything else.
    """

    def __init__(
        self,
        length: int,
        multipliers: Sequence[Multipliers] | None = None,
        captured: Captured | None = None,
    ) -> None:
        self.multipliers = multipliers
        self.multiplied: dict[int, Scalars] = {}
        self.lists: dict[Any, Any] = {}
        self.norms: Any = None
        self.columns: dict[int, Column] = {}
        self.rows: dict[int, Any] = {}
        self.gradients: list[Array] = []
        self.captured = captured
        self.prepared = 0
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

    def scalars(self, variant: Variant, hyper: Hyperparameters, which: int) -> tuple[Any, ...]:
        """Return a kernel's arguments that are scalars of one variable, or for a captured step their array."""
        if self.captured is None:
            multipliers = NEUTRAL if self.multipliers is None else self.multipliers[which]
            return scalars(variant, hyper.numbers_of(multipliers), hyper.clipvalue)
        row = 0 if self.multipliers is None else which
        return (self.captured.scalars.array(variant)[row * COUNT : (row + 1) * COUNT],)

    def scalars_of_list(self, variant: Variant, hyper: Hyperparameters) -> tuple[Any, ...]:
        """Return the scalars of a list, in an array those that differ, for a captured step all."""
        if self.captured is not None:
            return (self.captured.scalars.array(variant),)
        shared = scalars(variant, hyper.numbers_of(), hyper.clipvalue)
        if self.multipliers is None:
            return shared
        own = self.scalars_of_device()
        own.write(hyper, self.multipliers)
        return own.array(variant), *shared

    def scalars_of_device(self) -> Scalars:
        """Return the memory of the current device for the scalars of variables that differ."""
        device = cupy.cuda.runtime.getDevice()
        if device not in self.multiplied:
            self.multiplied[device] = Scalars(len(self.multipliers or ()))
        return self.multiplied[device]

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
        return self.column(len(gradients)).write(np.array([g.data.ptr for g in gradients], np.uint64))

    def column(self, count: int) -> Column:
        """Return the memory of the current device for the addresses of so many gradients."""
        device = cupy.cuda.runtime.getDevice()
        if device not in self.columns:
            self.columns[device] = Column(count)
        return self.columns[device]

    def rows_of_device(self, make: Callable[[], Any]) -> Any:
        """Return the memory of the current device for the rows of sparse gradients, made if there is none."""
        device = cupy.cuda.runtime.getDevice()
        if device not in self.rows:
            self.rows[device] = make()
        return self.rows[device]

    def occupied(self, parameters: Sequence[Updatable]) -> Occupied:
        """Return the memory of all variables and slots."""
        count = len(parameters) + sum([len(p.slots) for p in parameters])
        if self._occupied is None or self._occupied.count != count:
            self._occupied = Occupied(parameters)
        return self._occupied


def kept_for_step(parameters: Sequence[Updatable], hyper: Hyperparameters) -> Kept:
    """Return what a step over a list of parameters uses."""
    first = parameters[0]
    device = first.variable.array.device
    if is_captured(device.id):
        multipliers = multipliers_of(parameters)
        with device:
            return Kept(len(parameters), multipliers, Captured(hyper, multipliers or [NEUTRAL]))
    # A parameter lives as long as the plans of its optimizer: its identity is that of no other.
    key = tuple(map(id, parameters))
    kept: Kept | None = first.plans.get(key)
    if kept is None:
        kept = Kept(len(parameters), multipliers_of(parameters))
        first.plans.keep(key, kept)
    return kept
