"""One step over a list of variables whose slots are kept in a smaller dtype."""

import math
import operator
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host
from rmsprop.backends import Gradient, Updatable
from rmsprop.formula import SLOTS, Hyperparameters
from rmsprop_numba import block_kernels, codes
from rmsprop_numba.aliases import disjoint, owners_of
from rmsprop_numba.block_kernels import LENGTH
from rmsprop_numba.compact import SHORTEST, Blocks, CompactSlot
from rmsprop_numba.lists import scalars
from rmsprop_numba.threads import Job, job

Array = Host
Slots = Sequence[CompactSlot | None]
"""``rms``, ``momentum`` and ``mg``; None for what the step does not use."""

LEAST = {"bfloat16": 1 + 2.0**-6, "uint8": 1 + 2.0**-3}
"""How much larger than the square of the mean the mean of squares is, at least, for all that rounding tells."""


def jobs(
    parameters: Sequence[Updatable], gradients: Sequence[Gradient], factors: Array | None, hyper: Hyperparameters
) -> list[Job]:
    """Return the calls that update all variables and slots, of which none may fail."""
    found: list[Job] = []
    variables = [(parameter.variable.array,) for parameter in parameters]
    for i, gradient in enumerate(disjoint(gradients, [owners_of(v) for v in variables], variables)):
        slots = hyper.used(parameters[i].slots)
        factor = None if factors is None else tuple(factors[i].tolist())
        found += _jobs(parameters[i], cast("Slots", slots), gradient, factor, hyper)
    return found


def _jobs(
    parameter: Updatable, slots: Slots, gradient: Gradient, factor: Any, hyper: Hyperparameters
) -> Iterator[Job]:
    """Yield the calls that update one variable; what is not contiguous is copied, and put back."""
    variable, numbers = parameter.variable.array, (*scalars(hyper), factor)
    division = cast("CompactSlot", slots[0]).blocks
    if isinstance(gradient, IndexedSlices):
        rows, gradient = _summed(gradient, hyper.clipvalue, factor)
        numbers = (*numbers[:-2], None, None)
        if hyper.lazy or hyper.momentum is not None:
            division, blocks = _blocks_of_rows(parameter, division, rows, hyper)
            values = np.ascontiguousarray(variable[rows])
            yield _sweep(values, gradient, slots, division, blocks, numbers, hyper)
            yield operator.setitem, (variable, rows, values)
            return
        dense = np.zeros(variable.shape, variable.dtype)  # the averages of all rows decay
        dense[rows] = gradient
        gradient = dense
    values, contiguous = (np.require(a, requirements=("C", "A")) for a in (variable, gradient))
    yield _sweep(values, contiguous, slots, division, None, numbers, hyper)
    if values is not variable:
        yield np.copyto, (variable, values)


def _sweep(
    values: Array,
    gradient: Array,
    slots: Slots,
    division: Blocks,
    blocks: Array | None,
    numbers: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Job:
    """Return the call of the kernel, for all blocks or those listed."""
    count = values.size // division.row * division.per_row if blocks is None else len(blocks)
    seeds = [codes.displacement(len(SLOTS) * hyper.step + i) for i in range(len(SLOTS))]
    dither = np.array(seeds, np.uint32), np.uint32(codes.displacement(-2 - hyper.step) | 1)
    encodings = [(None, None) if slot is None else slot.encoding for slot in slots]
    arrays = values.reshape(-1), gradient.reshape(-1), *chain(*encodings)
    kernels = block_kernels.sweep_blocks, block_kernels.sweep_blocks_parallel
    least = LEAST[cast("str", hyper.state_dtype)]
    return job(*kernels, values.size, count, blocks, *division, *dither, least, *arrays, *numbers)


def _blocks_of_rows(
    parameter: Updatable, division: Blocks, rows: Array, hyper: Hyperparameters
) -> tuple[Blocks, Array]:
    """Return the blocks of listed rows, in a division in which no two rows share one."""
    width = math.prod(parameter.shape[1:])
    if hyper.state_dtype == "bfloat16":  # has no scales, so that any division will do
        division = Blocks(max(width, 1), max(1, min(width, LENGTH)))
    elif division.row != width or len(parameter.shape) < 2:
        raise TypeError(
            f"Gradient of variable {parameter}: with state_dtype='uint8', a row of fewer than {SHORTEST} elements "
            f"can't be updated alone, since rows share the scales of their slots. Expected a dense gradient or "
            f"state_dtype='bfloat16'; given IndexedSlices for rows of {width}."
        )
    per_row = division.per_row if width else 0
    return division, (rows[:, None] * per_row + np.arange(per_row)).reshape(-1)


@np.errstate(all="ignore")  # as in kernels
def _summed(gradient: IndexedSlices, limit: float | None, factor: Any) -> tuple[Array, Array]:
    """Return the rows that are listed, once each, and the sums of their clipped gradients."""
    values = gradient.values if limit is None else np.clip(gradient.values, -limit, limit)
    for number in factor or ():
        values = values * values.dtype.type(number)
    rows, which = np.unique(gradient.indices, return_inverse=True)
    rows = rows.astype(np.int64)
    if not len(rows):
        return rows, values
    order = np.argsort(which, kind="stable")
    return rows, np.add.reduceat(values[order], np.searchsorted(which[order], np.arange(len(rows))), axis=0)
