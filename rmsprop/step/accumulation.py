"""Accumulation: gradients of several calls are added up, and their mean makes one step, as in Keras 3."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, namespace, to_numpy, unrecorded
from rmsprop.arrays.rows import rows_of, sums_by_row, with_rows
from rmsprop.arrays.windows import Windows, flat
from rmsprop.backends import Gradient
from rmsprop.formula import ACCUMULATOR
from rmsprop.settings.checks import Pairs
from rmsprop.settings.settings import Settings
from rmsprop.state.parameters import Parameter
from rmsprop.step import gradients, slots
from rmsprop.step.groups import by_backend, is_captured
from rmsprop.step.take import checked
from rmsprop.variables.variable import Variable


def take(
    step: Callable[[Settings, Any, bool], Variable | None], settings: Settings, given: Any, aggregate: bool
) -> Variable | None:
    """Take a step with the mean gradients of several calls, or only add gradients up.

    In the latter case, ranks need not wait for each other: each has sums of its own.
    """
    strategy, iterations = settings.state.strategy, settings.state.iterations
    doing = f"a call that accumulates gradients for step {int(iterations.count)}"
    with nullcontext() if strategy is None else strategy.ranks.announcing(doing):
        pairs = gathered(settings, given)
    if pairs is None:
        return iterations
    result = step(settings, pairs, aggregate)
    _reset(settings, pairs)
    return result


def gathered(settings: Settings, given: Any) -> Pairs | None:
    """Return the pairs for a step, with mean gradients; None if this call has only added its gradients.

    Nothing is changed for a step: sums begin anew once it has been taken. A gradient that is missing in the call
    that takes a step leaves the sum of its variable as it is, for the next one.
    """
    count = settings.state.accumulated
    pairs = gradients.pairs(given)
    if not pairs:
        return pairs
    parameters, grads = checked(settings, pairs)
    if is_captured(by_backend(parameters, grads)):
        raise RuntimeError("A step can't be captured in a graph: accumulate counts calls, which a graph can't.")
    slots.complete(settings, parameters)
    calls = int(count.array) + 1
    if calls >= settings.values["accumulate"]:
        return [(_mean(p, g, calls), p.key) for p, g in zip(parameters, grads, strict=True)]
    sums = [_sum(p, g, keeps=True) for p, g in zip(parameters, grads, strict=True)]
    for parameter, total in zip(parameters, sums, strict=True):
        if not parameter.backend.in_place:
            parameter.slots[ACCUMULATOR].array = total
    count.assign(calls)
    return None


def _reset(settings: Settings, pairs: Pairs) -> None:
    """Begin anew, with no gradients of these variables."""
    state = settings.state
    for _, variable in pairs:
        parameter = state.parameters.find(variable)
        if parameter is not None:
            array = parameter.slots[ACCUMULATOR].array
            with unrecorded(array):
                if parameter.backend.in_place:
                    array[...] = 0
                else:
                    parameter.slots[ACCUMULATOR].array = namespace(array).zeros_like(array)
    state.accumulated.assign(0)


@np.errstate(all="ignore")
def _mean(parameter: Parameter, gradient: Gradient, calls: int) -> Array:
    """Return the mean gradient of a variable over so many calls, in the variable's dtype."""
    total = _sum(parameter, gradient, keeps=False)
    with unrecorded(total):
        return namespace(total).astype(total / calls, parameter.variable.array.dtype)


@np.errstate(all="ignore")
def _sum(parameter: Parameter, gradient: Gradient, keeps: bool) -> Array:
    """Return the sum of the gradients of a variable with another one; `keeps` it where arrays change in place."""
    total = parameter.slots[ACCUMULATOR].array
    xp = namespace(total)
    with unrecorded(total):
        if isinstance(gradient, IndexedSlices):
            return _with_rows(total, gradient, keeps and parameter.backend.in_place)
        if isinstance(gradient, Windows):
            zeros, rows = xp.reshape(xp.zeros_like(total), (-1,)), flat(gradient, total.shape)
            gradient = xp.reshape(_with_rows(zeros, rows, parameter.backend.in_place), total.shape)
        wide = xp.astype(gradient, total.dtype, copy=False)
        if not (keeps and parameter.backend.in_place):
            return total + wide
        total += wide
        return total


def _with_rows(total: Array, gradient: IndexedSlices, in_place: bool) -> Array:
    """Return a sum with the rows of a sparse gradient, those that are listed several times in their order."""
    xp = namespace(total)
    rows, order, starts = rows_of(to_numpy(gradient.indices))
    if not len(rows):
        return total
    sums = sums_by_row(xp, xp.astype(gradient.values, total.dtype, copy=False), order, starts)
    if in_place:
        total[rows] += sums
        return total
    added = with_rows(xp, xp.zeros_like(total), rows, sums)
    return total + added
