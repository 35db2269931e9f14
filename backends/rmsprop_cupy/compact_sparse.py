"""Sparse gradients of variables whose slots are codes: the blocks of what they list are updated."""

import math
from typing import Any, cast

import cupy
import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Updatable
from rmsprop.formula import AVERAGE, Hyperparameters, Numbers
from rmsprop.variables.compact import LENGTH, Blocks, EncodedSlot, shared_scales_error
from rmsprop_cupy import compact_dense, compact_elements, compact_kernels, kernels, passes, sparse, windows
from rmsprop_cupy.compact_dense import Given
from rmsprop_cupy.counters import Misses
from rmsprop_cupy.kernels import Change
from rmsprop_cupy.launches import Launch, paired, scalars
from rmsprop_cupy.rows import Listing
from rmsprop_cupy.source import Variant


def launches(
    parameter: Updatable,
    position: int,
    gradient: IndexedSlices | Windows,
    listing: Listing | None,
    given: Given,
) -> list[Launch]:
    """Return the launches that update what a gradient lists of a variable, and what changes without it.

    Rows have a listing if there are any.
    """
    hyper, array = given.hyper, parameter.variable.array
    numbers, variant = hyper.numbers_of(parameter.multipliers), given.variant(array)
    variable, factor = paired(array, hyper), (given.factors, position) if given.factors is not None else ()
    division = None if hyper.averages_decay else _division(parameter, isinstance(gradient, Windows), hyper)
    begun, finished = [], []
    if variant.average:
        average = paired(parameter.slots[AVERAGE].array, hyper)
        finished.append(passes.averaging(variant, factor, variable, average, numbers))
        variant = sparse.without_average(variant)
    if division is None:
        return [*_spread(parameter, position, variant, gradient, listing, numbers, given), *finished]
    if hyper.variables_shrink:
        begun.append(passes.shrinking(variant, factor, variable, numbers))
        variant = sparse.without(variant, "shrinkage")
    if isinstance(gradient, Windows) and gradient.values.size:
        begun.append(_windows(parameter, position, variant, gradient, numbers, given))
    if listing is not None:
        begun += _rows(parameter, position, variant, listing, division, numbers, given)
    return begun + finished


def _division(parameter: Updatable, is_windows: bool, hyper: Hyperparameters) -> Blocks:
    """Return the blocks of rows, or of elements, of which no two share one."""
    rms = _slots(parameter, hyper)[0]
    width = (1 if is_windows else math.prod(parameter.shape[1:])) * rms.reals
    if hyper.state_dtype == "bfloat16":
        is_complex = parameter.variable.array.dtype.kind == "c" and rms.reals == 1
        return Blocks(max(width, 1), max(1, min(width, LENGTH // 2 if is_complex else LENGTH)))
    if rms.blocks.row != width or len(parameter.shape) < 2:
        raise shared_scales_error(parameter, width // rms.reals)
    return rms.blocks


def _slots(parameter: Updatable, hyper: Hyperparameters) -> list[EncodedSlot]:
    """Return the slots of a variable that are kept as codes."""
    return [cast("EncodedSlot", parameter.slots[name]) for name in hyper.slots if name != AVERAGE]


def _rows(
    parameter: Updatable,
    position: int,
    variant: Variant,
    listing: Listing,
    division: Blocks,
    numbers: Numbers,
    given: Given,
) -> list[Launch]:
    """Return the launches for rows; a variable that is not contiguous is copied, and put back."""
    hyper, array = given.hyper, paired(parameter.variable.array, given.hyper)
    values, tables = listing.values, []
    contiguous = cupy.ascontiguousarray(array)
    for slot in _slots(parameter, hyper):
        codes, scales = slot.encoding
        tables += [codes] if scales is None else [codes, scales]
    count, per_row = len(values), division.per_row
    sizes = [count, listing.low, values.size // count, parameter.shape[0], division.length, per_row]
    common = given.arguments(variant, scalars(variant, numbers, hyper.clipvalue))
    which = [np.int32(position)] if variant.factor else []
    arguments = values, listing.elements, *map(np.int64, sizes), contiguous, *tables, *which, *common
    kernel = compact_kernels.rows_kernel(variant, cast("str", hyper.state_dtype), kernels.OPTIONS)
    threads = compact_dense.threads_for(division.length)
    launch = Launch(array.device, kernel, ((count * per_row,), (threads,), arguments))
    back = [] if contiguous is array else [Launch(array.device, cupy.copyto, (array, contiguous))]
    return [launch, *back]


def _windows(
    parameter: Updatable, position: int, variant: Variant, gradient: Windows, numbers: Numbers, given: Given
) -> Launch:
    """Return the launch for windows, whose slots have no scales."""
    hyper = given.hyper
    factor = (given.factors, position) if variant.factor else ()
    step = np.uint64(given.step), *([given.skipped] if variant.guarded else [])
    inputs = *factor, *scalars(variant, numbers, hyper.clipvalue), *step
    tables = [paired(parameter.variable.array, hyper), *[slot.codes for slot in _slots(parameter, hyper)]]
    change = compact_elements.element_update(variant)
    return _listed(parameter, variant, change, gradient, None, inputs, tables, hyper)


def _spread(
    parameter: Updatable,
    position: int,
    variant: Variant,
    gradient: IndexedSlices | Windows,
    listing: Listing | None,
    numbers: Numbers,
    given: Given,
) -> list[Launch]:
    """Return the launches by which all averages decay: the update by a dense gradient, which is 0 elsewhere."""
    hyper, array = given.hyper, paired(parameter.variable.array, given.hyper)
    dense = cupy.zeros(array.shape, compact_kernels.computing(variant))
    found = []
    if gradient.values.size:
        factor = (given.factors, position) if variant.factor else ()
        inputs = *factor, *scalars(variant, numbers, hyper.clipvalue)
        unguarded = variant._replace(guarded=False)
        change = compact_elements.gathering(unguarded)
        tables = [array, dense]
        found.append(_listed(parameter, unguarded, change, gradient, listing, inputs, tables, hyper))
    neutral = None if given.factors is None else given.factors * 0 + 1  # or NaN, by which a step is left out
    left = given._replace(factors=neutral if variant.guarded else None)
    plain = sparse.without(variant, "weight_decay")._replace(clipvalue=False, factor=variant.guarded)
    numbers = numbers._replace(weight_decay=None)
    arguments: tuple[Any, ...] = scalars(plain, numbers, None)
    found += compact_dense.update([parameter], [position], [dense], position + 1, plain, arguments, left)
    return found


def _listed(
    parameter: Updatable,
    variant: Variant,
    change: Change,
    gradient: IndexedSlices | Windows,
    listing: Listing | None,
    given: tuple[Any, ...],
    tables: list[Array],
    hyper: Hyperparameters,
) -> Launch:
    """Return the launch of a change of each listed element, given its inputs and what it changes."""
    if listing is not None:
        return listing.launch(variant, change, parameter.shape[0], (*given, *tables))
    parameter.notes = misses = parameter.notes or Misses()
    inputs = *given, misses.array, *tables
    launch = windows.launch(cast("Windows", gradient), parameter.shape, variant, change, inputs, hyper)
    return launch._replace(then=misses.record)
