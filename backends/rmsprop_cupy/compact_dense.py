"""Dense gradients of variables whose slots are codes: one launch for all that have a dtype in common.

A row of the table stands for a block of codes. It holds the number of elements, the index of the first in the
variable, the variable's position in the step's list, the address of the first element, those of the first code and
of the scale in each slot, and that of the average. The table is made once. Gradients are found by their addresses,
and so are copies of variables that are not contiguous: for these the table has distances from the first element.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.backends import Updatable
from rmsprop.formula import AVERAGE, Hyperparameters, needed_slots
from rmsprop.variables.compact import EncodedSlot
from rmsprop_cupy import compact_kernels, kernels
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.launches import Launch, paired, variant_of
from rmsprop_cupy.source import Variant
from rmsprop_cupy.streams import Column, hold


class Given(NamedTuple):
    """What all launches of a step on a device are given."""

    factors: Array | None
    skipped: Array | None
    """How many steps the device has left out, if it decides that."""
    step: int
    """The number of the step, if the device had left out none."""
    hyper: Hyperparameters
    kept: Kept

    def variant(self, array: Array) -> Variant:
        """Return what the kernel for an array is to be compiled for."""
        return variant_of(paired(array, self.hyper), self.hyper, self.factors, self.kept.captured)

    def arguments(self, variant: Variant, scalars: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the last arguments of a kernel, in the order of its declaration."""
        real = kernels.REAL[variant.dtype]
        with np.errstate(all="ignore"):  # of numbers that single precision can't hold
            numbers = [x if isinstance(x, cupy.ndarray) else real(x) for x in scalars]
        factors = [self.factors] if variant.factor else []
        captured = self.kept.captured
        step = np.uint64(self.step) if captured is None else captured.step
        return (*factors, *numbers, step, *([self.skipped] if variant.guarded else []))


class Table:
    """The table of a list.

    Attributes
    ----------
    positions : list of int
        Where its parameters stand in the step's list.
    slots : tuple of str
        The names of those whose addresses the table has.
    rows : cupy.ndarray of uint64
    threads : int
        How many a block of threads has: enough for the longest block of codes, or as many as there can be.
    column : Column
        The addresses of gradients and of copies.
    """

    def __init__(
        self,
        parameters: Sequence[Updatable],
        positions: list[int],
        slots: tuple[str, ...],
        count: int,
        hyper: Hyperparameters,
    ) -> None:
        self.positions, self.slots = positions, slots
        pairs = zip(positions, parameters, strict=True)
        table = np.concatenate([_rows(k, p, slots, hyper) for k, p in pairs])
        self.rows = cupy.asarray(table)
        self.threads = threads_for(int(table[:, 0].max(initial=1)))
        self.column = Column(3 * count)


def threads_for(longest: int) -> int:
    """Return how many threads a block has for blocks of codes of at most so many elements."""
    return min(compact_kernels.THREADS, -(-longest // 32) * 32)


def _rows(position: int, parameter: Updatable, names: tuple[str, ...], hyper: Hyperparameters) -> Host:
    """Return the rows of the table for one variable and its slots."""
    slots = [cast("EncodedSlot", parameter.slots[name]) for name in names if name != AVERAGE]
    blocks, arrays = slots[0].blocks, _arrays(parameter, names, hyper)
    k = np.arange(arrays[0].size // blocks.row * blocks.per_row, dtype=np.uint64)
    row, length, per_row = map(np.uint64, (*blocks, blocks.per_row))
    starts, places = k // per_row * row, k % per_row * length
    counts, starts = np.minimum(length, row - places), starts + places
    first, *averages = [_base(a) + starts * np.uint64(a.itemsize) for a in arrays]
    columns = [counts, starts, np.full_like(starts, position), first]
    for slot in slots:
        reals, scales = np.uint64(slot.codes.size // max(arrays[0].size, 1)), slot.encoding[1]
        columns.append(np.uint64(slot.codes.data.ptr) + starts * reals * np.uint64(slot.codes.itemsize))
        if scales is not None:
            columns.append(np.uint64(scales.data.ptr) + k * np.uint64(scales.itemsize))
    return np.stack([*columns, *averages], axis=1)


def _arrays(parameter: Updatable, names: tuple[str, ...], hyper: Hyperparameters) -> list[Array]:
    """Return a variable and, if it is among the slots, its average; as reals if complex numbers count as such."""
    averages = [parameter.slots[AVERAGE].array] if AVERAGE in names else []
    return [paired(array, hyper) for array in (parameter.variable.array, *averages)]


def _base(array: Array) -> np.uint64:
    """Return what the table adds to for an array; 0 if the address is that of a copy."""
    return np.uint64(array.data.ptr if array.flags.c_contiguous else 0)


def launches(
    parameters: Sequence[Updatable],
    positions: list[int],
    gradients: Sequence[Array],
    count: int,
    given: Given,
) -> list[Launch]:
    """Return the launches for variables of one device and dtype, with a gradient each.

    `count` is the length of the step's list.
    """
    kept, hyper, array = given.kept, given.hyper, parameters[0].variable.array
    variant = given.variant(array)._replace(multiplied=kept.multipliers is not None)
    with kept.setup():
        scalars = kept.scalars_of_list(variant, hyper)
    return update(parameters, positions, gradients, count, variant, scalars, given)


def update(
    parameters: Sequence[Updatable],
    positions: list[int],
    gradients: Sequence[Array],
    count: int,
    variant: Variant,
    scalars: tuple[Any, ...],
    given: Given,
) -> list[Launch]:
    """Return the launches for a variant of the formula, given its scalars."""
    kept, hyper, array = given.kept, given.hyper, parameters[0].variable.array
    slots = needed_slots(variant.momentum, variant.centered, variant.average)
    with kept.setup():
        table = _table(kept, parameters, positions, slots, count, hyper)
    if table.rows.size == 0:
        return []
    addresses, alive, put_back = np.zeros((3, count), np.uint64), [], []
    for position, parameter, gradient in zip(positions, parameters, gradients, strict=True):
        for k, each in enumerate([paired(gradient, hyper), *_arrays(parameter, slots, hyper)]):
            if k == 0 or not each.flags.c_contiguous:
                contiguous = cupy.ascontiguousarray(each)
                addresses[k, position] = contiguous.data.ptr
                alive.append(contiguous)
                put_back += [Launch(array.device, cupy.copyto, (each, contiguous))] * (k > 0)
    kept.keep(alive)
    with kept.setup():
        column = table.column.write(addresses.reshape(-1))
    is_wide = gradients[0].dtype != array.dtype
    kernel = compact_kernels.list_kernel(variant, cast("str", hyper.state_dtype), is_wide, kernels.OPTIONS)
    arguments = (table.rows, column, np.int64(count), *given.arguments(variant, scalars))
    # The copies live until the kernel, which only gets their addresses, has been launched.
    launch = Launch(array.device, kernel, ((len(table.rows),), (table.threads,), arguments), then=alive.clear)
    return [launch, *put_back]


def _table(
    kept: Kept,
    parameters: Sequence[Updatable],
    positions: list[int],
    slots: tuple[str, ...],
    count: int,
    hyper: Hyperparameters,
) -> Table:
    array = parameters[0].variable.array
    key = "codes", array.device.id, array.dtype, positions[0]
    table: Table | None = kept.lists.get(key)
    if table is None or (table.slots, table.positions) != (slots, positions):
        hold(table)
        table = kept.lists[key] = Table(parameters, positions, slots, count, hyper)
    return table
