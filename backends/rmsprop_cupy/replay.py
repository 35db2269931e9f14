"""A step that repeats the one before, on arrays of one device without gaps, in few calls of Python.

All that a kernel is given is known but where the gradients are. What of variables and gradients may have changed
is looked at in each step. CuPy lets nobody change dtype, size, memory or device of an array that there is. So the
shape is enough of the variables, which are held, and of gradients that are the same objects as before: what has no
gaps has strides that follow from it.
"""

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import Any, cast
from weakref import ref

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.backends import Gradient, Updatable
from rmsprop.formula import NEUTRAL, Hyperparameters
from rmsprop_cupy import kernels, lists, norms, updates
from rmsprop_cupy.counters import Tally
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.launches import paired, slots, variant_of
from rmsprop_cupy.norms import Clipping

SHAPE, STRIDES, DTYPE, DATA = [attrgetter(name) for name in ("shape", "strides", "dtype", "data")]
NDIM, SIZE, PLACE, DEVICE = [attrgetter(name) for name in ("ndim", "size", "ptr", "device_id")]
PAIRS, ARRAYS = {tuple}, {cupy.ndarray}


def keep(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    factors: Any,
    hyper: Hyperparameters,
    kept: Kept,
) -> None:
    """Keep a replay of a step that has been prepared twice, if there can be one and there is none.

    A list that is given only once needs none, for which kernels may have to be compiled.
    """
    kept.prepared += 1
    first = parameters[0]
    replay = first.plans.get(id(first.key))
    if kept.prepared < 2 or (isinstance(replay, Replay) and replay.is_of(kept, hyper)):
        return
    if _is_possible(parameters, gradients, factors, hyper, kept):
        with first.variable.array.device:
            first.plans.keep(id(first.key), Replay(parameters, factors, hyper, kept))


def _is_possible(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    factors: Any,
    hyper: Hyperparameters,
    kept: Kept,
) -> bool:
    arrays = [array for p in parameters for array in slots(p, hyper)]
    return (
        kept.captured is None
        and hyper.state_dtype is None
        and (factors is None or isinstance(factors, Clipping))
        and {*map(type, gradients)} == ARRAYS
        and len({a.data.device_id for a in arrays}) == 1
        and all([a.flags.c_contiguous for a in arrays])
    )


def _kind(hyper: Hyperparameters) -> Any:
    """Return all of the hyperparameters that the launches themselves depend on."""
    limits = hyper.clipvalue, hyper.clipnorm, hyper.global_clipnorm
    are_given = [number is not None for number in (*limits, *hyper.numbers_of())]
    return (
        hyper.slots,
        hyper.complex_as_real,
        hyper.nonfinite,
        hyper.state_dtype,
        hyper.loss_scale == 1.0,
        are_given,
    )


class Replay:
    """A step over a list of parameters; a `rmsprop.backends.Replay`.

    Parameters
    ----------
    parameters : sequence of Updatable
        They are not held themselves: they hold the plans, and so this.
    factors : Clipping or None
    hyper : Hyperparameters
    kept : Kept
        It has the memory of variables and slots, and of all that the launches read.
    """

    def __init__(
        self, parameters: Sequence[Updatable], factors: Clipping | None, hyper: Hyperparameters, kept: Kept
    ) -> None:
        arrays = [p.variable.array for p in parameters]
        self._kept, self._slots, self._kind = kept, hyper.slots, _kind(hyper)
        self._keys, self._arrays = [p.key for p in parameters], arrays
        self._wrapped = [(p.variable, p.variable.array) for p in parameters if not p.is_raw]
        self._shapes, self._strides, self._dtypes = [list(map(of, arrays)) for of in (SHAPE, STRIDES, DTYPE)]
        self._ndims, self._counts = list(map(NDIM, arrays)), list(map(SIZE, arrays))
        is_plain = {*self._ndims} <= {1, 2} and all(self._counts)
        self._lengths = list(map(len, arrays)) if is_plain else None
        self._device = arrays[0].data.device_id
        self._occupied, self._sizes = kept.occupied(parameters), np.array([a.nbytes for a in arrays], np.uint64)
        is_short = len(arrays) <= lists.FEW  # for which NumPy takes longer than plain numbers
        self._spans = self._occupied.spans() if is_short else None
        self._few_sizes: list[int] = self._sizes.tolist()
        self._apart: tuple[list[int], Host] = [], np.empty(0, np.uint64)
        """Addresses of gradients that are known to lie apart from what is updated."""
        self._known: list[Any] = []
        """Weak references to these gradients, if they have been given twice."""
        self._hyper: Hyperparameters | None = None
        self._plan = None if factors is None else factors.plan
        self._tally = cast("Tally | None", parameters[0].plans.tally) if hyper.nonfinite == "skip" else None
        self._tables = lists.tables_of(kept, parameters, hyper)
        self._single, self._many = self._updates(parameters, hyper)
        self._calls: list[norms.Call] = []
        is_listed = self._plan is not None or self._many
        self._column = kept.column(len(parameters)) if is_listed else None
        self._scalars = kept.scalars_of_device() if self._many and kept.multipliers is not None else None

    def __len__(self) -> int:
        return len(self._keys)

    def is_of(self, kept: Kept, hyper: Hyperparameters) -> bool:
        """Tell whether it is for a list and hyperparameters, and what they have is still the same."""
        return self._kept is kept and self._is_current() and self._kind == _kind(hyper)

    def _is_current(self) -> bool:
        """Tell whether the plans of the list are those that the launches read."""
        kept = self._kept
        if self._plan is not None and kept.norms is not self._plan:
            return False
        for key, table in self._tables.items():  # noqa: SIM110 (a generator would be one more call)
            if kept.lists.get(key) is not table:
                return False
        return True

    def accept(self, given: list[Any], slots: tuple[str, ...], hyper: Hyperparameters | None) -> Any:
        """Return the addresses of the gradients, in a list and an array, if all is as it was, else None."""
        if slots != self._slots or len(given) != len(self._keys) or {*map(type, given)} != PAIRS:
            return None
        try:
            gradients, keys = zip(*given, strict=True)
        except ValueError:
            return None
        if not all(map(is_, keys, self._keys)):
            return None
        for variable, array in self._wrapped:
            if variable.array is not array or variable.constraint is not None or not variable.trainable:
                return None
        if (
            cupy.cuda.runtime.getDevice() != self._device
            or cupy.cuda.get_current_stream().is_capturing()
            or not self._is_current()
            or (hyper is not self._hyper and hyper is not None and not self._follow(hyper))
        ):
            return None
        if self._known and all(map(is_, gradients, map(ref.__call__, self._known))):
            return self._apart if self._are_shaped(gradients) else None
        return self._checked(gradients)

    def _checked(self, gradients: tuple[Any, ...]) -> tuple[list[int], Host] | None:
        """Return the addresses of gradients that may be other arrays than before, or None."""
        if {*map(type, gradients)} != ARRAYS or list(map(STRIDES, gradients)) != self._strides:
            return None
        data = list(map(DATA, gradients))
        if (
            not self._are_shaped(gradients)
            or list(map(SIZE, gradients)) != self._counts
            or list(map(DTYPE, gradients)) != self._dtypes
            or {*map(DEVICE, data)} != {self._device}
        ):
            return None
        addresses = list(map(PLACE, data))
        if addresses == self._apart[0]:
            self._known = list(map(ref, gradients))
            return self._apart
        words = np.array(addresses, np.uint64)
        if self._spans is None:
            if np.logical_or.reduce(self._occupied.touched(words, words + self._sizes)):
                return None
        else:
            for start, size in zip(addresses, self._few_sizes, strict=True):
                for low, high in self._spans:
                    if start < high and low < start + size:
                        return None
        self._apart, self._known = (addresses, words), []
        return self._apart

    def _are_shaped(self, gradients: tuple[Any, ...]) -> bool:
        """Tell whether gradients and variables have the shapes of before, if they have as many elements and axes.

        Up to two axes, the length of the first tells the other. To read it takes a fifth of the time of a shape.
        """
        arrays, shapes, lengths = self._arrays, self._shapes, self._lengths
        if lengths is None:
            return list(map(SHAPE, gradients)) == shapes == list(map(SHAPE, arrays))
        if list(map(NDIM, gradients)) != self._ndims or list(map(NDIM, arrays)) != self._ndims:
            return False
        return list(map(len, gradients)) == lengths == list(map(len, arrays))

    def _follow(self, hyper: Hyperparameters) -> bool:
        """Take the numbers of other steps, if the launches can be the same with them."""
        if _kind(hyper) != self._kind:
            return False
        for update in (*[update for _, update in self._single], *self._many):
            update.write(hyper)
        if self._plan is not None and self._column is not None:
            self._calls = norms.calls(self._plan, self._column.array, hyper, self._tally)
        self._hyper = hyper
        return True

    def step(self, accepted: tuple[list[int], Host], hyper: Hyperparameters) -> None:
        """Take the step; whether a gradient is finite is left to the device."""
        addresses, words = accepted
        if self._column is not None:
            self._column.write(words)
        if self._scalars is not None and self._kept.multipliers is not None:
            self._scalars.write(hyper, self._kept.multipliers)
        for function, grid, block, arguments in self._calls:
            function(grid, block, arguments)
        for position, update in self._single:
            update.words[0] = addresses[position]
            update.function(*update.call)
        for update in self._many:
            update.function(*update.call)
        self._kept.used()
        if self._tally is not None:
            self._tally.record()

    def _updates(
        self, parameters: Sequence[Updatable], hyper: Hyperparameters
    ) -> tuple[list[tuple[int, updates.Update]], list[updates.Update]]:
        """Return the updates of one array each, with its position, and those of the tables."""
        kept, single, many = self._kept, [], []
        for i, array in enumerate(self._arrays):
            if array.size and lists.key_of(array) not in self._tables:
                tables, factors = [paired(a, hyper) for a in slots(parameters[i], hyper)], self._factors(array)
                own = NEUTRAL if kept.multipliers is None else kept.multipliers[i]
                variant = variant_of(tables[0], hyper, factors, None)
                single.append((i, updates.of_array(variant, tables, factors, i, own)))
        for table in [table for table in self._tables.values() if table.rows.size]:
            array = self._arrays[table.positions[0]]
            factors, is_multiplied = self._factors(array), kept.multipliers is not None
            variant = variant_of(paired(array, hyper), hyper, factors, None, is_multiplied)
            numbers = kept.scalars_of_device().array(variant) if is_multiplied else None
            column = kept.column(len(parameters))
            many.append(updates.of_list(variant, table.rows, column.array, factors, numbers))
        return single, many

    def _factors(self, array: Array) -> Array | None:
        return None if self._plan is None else self._plan.factors[kernels.REAL[array.dtype.name].__name__]
