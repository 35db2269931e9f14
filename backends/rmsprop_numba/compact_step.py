"""One step over a list of variables whose slots are kept in a smaller dtype."""

import math
import operator
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, cast

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host
from rmsprop.arrays.windows import Windows, flat
from rmsprop.backends import SPARSE, Gradient, Updatable
from rmsprop.formula import AVERAGE, Hyperparameters
from rmsprop_numba import block_kernels, codes
from rmsprop_numba.aliases import disjoint, owners_of
from rmsprop_numba.block_kernels import LENGTH
from rmsprop_numba.compact import SHORTEST, Blocks, CompactSlot
from rmsprop_numba.rows import averaging, shrinking
from rmsprop_numba.threads import Job, job

Array = Host
Slots = Sequence[CompactSlot | None]
"""``rms``, ``momentum`` and ``mg``; None for what the step does not use."""

COUNT = 3
"""How many slots can be compact, which rounding is to treat differently."""

LEAST = {"bfloat16": 1 + 2.0**-6, "uint8": 1 + 2.0**-3}
"""How much larger than the square of the mean the mean of squares is, at least, for all that rounding tells."""


def jobs(
    parameters: Sequence[Updatable], gradients: Sequence[Gradient], factors: Array | None, hyper: Hyperparameters
) -> list[Job]:
    """Return the calls that update all variables and slots, of which none may fail."""
    found: list[Job] = []
    averages = [p.slots[AVERAGE].array for p in parameters if hyper.ema_momentum is not None]
    tables = [(p.variable.array, *averages[k : k + 1]) for k, p in enumerate(parameters)]
    for i, gradient in enumerate(disjoint(gradients, [owners_of(t) for t in tables], tables)):
        factor = None if factors is None else tuple(factors[i].tolist())
        found += _jobs(parameters[i], tables[i], gradient, factor, hyper)
    return found


def _jobs(
    parameter: Updatable, tables: Sequence[Array], gradient: Gradient, factor: Any, hyper: Hyperparameters
) -> Iterator[Job]:
    """Yield the calls that update one variable and its average; what is not contiguous is copied, and put back."""
    if isinstance(gradient, SPARSE):
        yield from _sparse_jobs(parameter, gradient, factor, hyper)
        for average in tables[1:]:
            yield from averaging(average, tables[0], hyper.numbers_of(parameter.multipliers))
        return
    numbers = tuple(hyper.numbers_of(parameter.multipliers)), hyper.clipvalue, factor
    contiguous = [np.require(a, requirements=("C", "A")) for a in (gradient, *tables)]
    yield _sweep(parameter, contiguous, None, None, numbers, hyper)
    for table, values in zip(tables, contiguous[1:], strict=True):
        if values is not table:
            yield np.copyto, (table, values)


def _sparse_jobs(
    parameter: Updatable, sparse: IndexedSlices | Windows, factor: Any, hyper: Hyperparameters
) -> Iterator[Job]:
    """Yield the calls that update the rows of a variable that are listed, and let others decay if they are to.

    Those of windows are single elements.
    """
    variable, numbers = parameter.variable.array, hyper.numbers_of(parameter.multipliers)
    slices = flat(sparse, parameter.shape) if isinstance(sparse, Windows) else sparse
    rows, gradient = _summed(slices, hyper.clipvalue, factor)
    where: Any = np.unravel_index(rows, parameter.shape) if isinstance(sparse, Windows) else rows
    if hyper.averages_decay:  # of all rows, so that all are updated
        dense = np.zeros(variable.shape, variable.dtype)
        dense[where] = _decayed(gradient, numbers.weight_decay, variable, where)
        values = np.require(variable, requirements=("C", "A"))
        numbers = numbers._replace(weight_decay=None)
        yield _sweep(parameter, (dense, values), None, None, (tuple(numbers), None, None), hyper)
        if values is not variable:
            yield np.copyto, (variable, values)
        return
    width = 1 if isinstance(sparse, Windows) else math.prod(parameter.shape[1:])
    division, blocks = _blocks_of_rows(parameter, rows, width, hyper)
    values = np.ascontiguousarray(variable[where])
    if hyper.variables_shrink:
        yield from shrinking(variable, numbers)
    yield _sweep(parameter, (gradient, values), division, blocks, (tuple(numbers), None, None), hyper)
    yield operator.setitem, (variable, where, values)


@np.errstate(all="ignore")
def _decayed(gradient: Array, weight_decay: float | None, variable: Array, rows: Any) -> Array:
    """Return gradients of some rows with weight decay."""
    return gradient if weight_decay is None else gradient + variable.dtype.type(weight_decay) * variable[rows]


def _sweep(
    parameter: Updatable,
    arrays: Sequence[Array],
    division: Blocks | None,
    blocks: Array | None,
    numbers: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Job:
    """Return the call of the kernel, for all blocks of a division or those listed.

    `arrays` are the gradient, what is to become of the variable and, if it is kept, its average.
    """
    slots = cast("Slots", hyper.used(parameter.slots)[:COUNT])
    gradient, values, *averages = [a.reshape(-1) for a in arrays]
    average = averages[0] if averages else None
    division = division or cast("CompactSlot", slots[0]).blocks
    count = values.size // division.row * division.per_row if blocks is None else len(blocks)
    seeds = [codes.displacement(COUNT * hyper.step + i) for i in range(COUNT)]
    dither = np.array(seeds, np.uint32), np.uint32(codes.displacement(-2 - hyper.step) | 1)
    encodings = [(None, None) if slot is None else slot.encoding for slot in slots]
    kernels = block_kernels.sweep_blocks, block_kernels.sweep_blocks_parallel
    least = LEAST[cast("str", hyper.state_dtype)]
    given = values, gradient, *chain(*encodings), average, *numbers
    return job(*kernels, values.size, count, blocks, *division, *dither, least, *given)


def _blocks_of_rows(parameter: Updatable, rows: Array, width: int, hyper: Hyperparameters) -> tuple[Blocks, Array]:
    """Return the blocks of listed rows, in a division in which no two rows share one."""
    division = cast("CompactSlot", hyper.used(parameter.slots)[0]).blocks
    if hyper.state_dtype == "bfloat16":  # has no scales, so that any division will do
        division = Blocks(max(width, 1), max(1, min(width, LENGTH)))
    elif division.row != width or len(parameter.shape) < 2:
        raise TypeError(
            f"Gradient of variable {parameter}: with state_dtype='uint8', a row of fewer than {SHORTEST} elements "
            f"can't be updated alone, since rows share the scales of their slots. Expected a dense gradient or "
            f"state_dtype='bfloat16'; given IndexedSlices or Windows for rows of {width}."
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
