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
from rmsprop.variables.compact import COUNT, LEAST, LENGTH, Blocks, dithers, shared_scales_error
from rmsprop_numba import block_kernels, layout, row_kernels
from rmsprop_numba.aliases import disjoint, owners_of
from rmsprop_numba.compact import CompactSlot
from rmsprop_numba.rows import averaging, shrinking
from rmsprop_numba.threads import Job, job

Array = Host
Slots = Sequence[CompactSlot | None]
"""``rms``, ``momentum`` and ``mg``; None for what the step does not use."""


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
    is_windows = isinstance(sparse, Windows)
    slices = flat(sparse, parameter.shape) if isinstance(sparse, Windows) else sparse
    rows, sums = _summed(slices, factor, hyper)
    where: Any = np.unravel_index(rows, parameter.shape) if is_windows else rows
    if hyper.averages_decay:  # of all rows, so that all are updated
        dense = np.zeros(layout.encoded(variable, hyper.complex_as_real).shape, sums.dtype)
        dense[where] = _decayed(sums, numbers.weight_decay, variable[where], hyper).reshape(dense[where].shape)
        values = np.require(variable, requirements=("C", "A"))
        numbers = numbers._replace(weight_decay=None)
        yield _sweep(parameter, (dense, values), None, None, (tuple(numbers), None, None), hyper)
        if values is not variable:
            yield np.copyto, (variable, values)
        return
    division, blocks = _blocks_of_rows(parameter, rows, is_windows, hyper)
    values = np.ascontiguousarray(variable[where])
    if hyper.variables_shrink:
        yield from shrinking(variable, numbers)
        yield from shrinking(values, numbers)
        numbers = numbers._replace(shrinkage=None)
    yield _sweep(parameter, (sums, values), division, blocks, (tuple(numbers), None, None), hyper)
    yield operator.setitem, (variable, where, values)


@np.errstate(all="ignore")
def _decayed(sums: Array, weight_decay: float | None, rows: Array, hyper: Hyperparameters) -> Array:
    """Return sums of gradients with weight decay, by the same rows of the variable."""
    if weight_decay is None:
        return sums
    real = sums.real.dtype
    values = layout.encoded(rows, True) if rows.dtype.kind == "c" else rows.astype(real)
    decay: Array = np.ascontiguousarray(values).reshape(-1) * real.type(weight_decay)
    decayed: Array = sums + decay.view(sums.dtype).reshape(sums.shape)
    return decayed


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
    gradient, values, *averages = [layout.encoded(a, hyper.complex_as_real).reshape(-1) for a in arrays]
    average = averages[0] if averages else None
    rms = cast("CompactSlot", slots[0])
    division = division or rms.blocks
    count = values.size // division.row * division.per_row if blocks is None else len(blocks)
    seeds, stride = dithers(hyper.step)
    dither = np.array(seeds, np.uint32), np.uint32(stride)
    encodings = [(None, None) if slot is None else slot.encoding for slot in slots]
    kernels = block_kernels.sweep_blocks, block_kernels.sweep_blocks_parallel
    least = LEAST[cast("str", hyper.state_dtype)]
    given = np.empty(0, rms.real), values, gradient, *chain(*encodings), average, *numbers
    return job(*kernels, values.size, count, blocks, *division, *dither, least, *given)


def _blocks_of_rows(
    parameter: Updatable, rows: Array, is_windows: bool, hyper: Hyperparameters
) -> tuple[Blocks, Array]:
    """Return the blocks of listed rows, or of elements, in a division in which no two of these share one."""
    rms = cast("CompactSlot", hyper.used(parameter.slots)[0])
    width = (1 if is_windows else math.prod(parameter.shape[1:])) * rms.reals
    division = rms.blocks
    if hyper.state_dtype == "bfloat16":  # has no scales, so that any division will do
        is_complex = parameter.variable.array.dtype.kind == "c" and rms.reals == 1
        division = Blocks(max(width, 1), max(1, min(width, LENGTH // 2 if is_complex else LENGTH)))
    elif division.row != width or len(parameter.shape) < 2:
        raise shared_scales_error(parameter, width // rms.reals)
    per_row = division.per_row if width else 0
    return division, (rows[:, None] * per_row + np.arange(per_row)).reshape(-1)


def _summed(gradient: IndexedSlices, factor: Any, hyper: Hyperparameters) -> tuple[Array, Array]:
    """Return the rows that are listed, once each, and the sums of their clipped gradients, in their order."""
    values = np.ascontiguousarray(layout.encoded(gradient.values, hyper.complex_as_real))
    count = len(gradient.indices)
    width = values.size // count if count else 0
    computing = np.float32 if values.dtype.kind in "ui" else values.dtype
    rows, sums = np.empty(count, np.int64), np.empty((count, width), computing)
    if count:
        buffers = np.empty((2, count), np.int64)
        which, bits = row_kernels.by_row(np.ascontiguousarray(gradient.indices, np.int64), buffers)
        limits = hyper.clipvalue, factor
        count = row_kernels.sum_rows(buffers[which], bits, values.reshape(-1), rows, sums, *limits)
    return rows[:count], sums[:count]
