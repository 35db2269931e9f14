"""Sparse gradients: what they list is updated, and what decays without them, and nothing waits for the device."""

from typing import Any

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Updatable
from rmsprop.formula import AVERAGE, Hyperparameters, Numbers
from rmsprop_cupy import kernels, passes, rows, windows
from rmsprop_cupy.counters import Misses
from rmsprop_cupy.launches import Launch, scalars
from rmsprop_cupy.source import Variant


def report_misses(parameter: Updatable) -> None:
    """Raise ``ValueError`` if earlier steps are known to have left out rows or windows of a variable."""
    misses: Misses | None = parameter.notes
    if misses is not None:
        misses.report(parameter.shape)


def launches(
    parameter: Updatable,
    variant: Variant,
    tables: list[Array],
    gradient: IndexedSlices | Windows,
    factor: tuple[Any, ...],
    hyper: Hyperparameters,
) -> list[Launch]:
    """Return the launches that update those elements of a variable and its slots that a sparse gradient lists.

    With ``hyper.lazy`` off, all others decay, those of averages only without momentum. The average of the
    variable, the last of the tables, is that of all elements.
    """
    numbers, by_name = hyper.numbers_of(parameter.multipliers), dict(zip(("v", *hyper.slots), tables, strict=True))
    begun, finished = [], []
    if hyper.averages_decay:
        slots = [name for name in hyper.slots if name != AVERAGE]
        begun += [passes.decaying(variant, factor, name, by_name[name], numbers.rho) for name in slots]
        numbers = numbers._replace(rho=1.0)  # what is listed decays with all else
    if hyper.variables_shrink:
        begun.append(passes.shrinking(variant, factor, tables[0], numbers))
        variant = without(variant, "shrinkage")
    if variant.average:
        finished.append(passes.averaging(variant, factor, tables[0], tables[-1], numbers))
        variant, tables = without_average(variant), tables[:-1]
    if gradient.values.size:
        begun.append(_update(parameter, variant, tables, gradient, factor, numbers, hyper))
    return begun + finished


def without_average(variant: Variant) -> Variant:
    """Return a variant of the formula without the average of the variable."""
    return without(variant, "ema", "one_minus_ema")._replace(average=False)


def without(variant: Variant, *terms: str) -> Variant:
    """Return a variant of the formula without some terms."""
    return variant._replace(terms=tuple([term for term in variant.terms if term not in terms]))


def _update(
    parameter: Updatable,
    variant: Variant,
    tables: list[Array],
    gradient: IndexedSlices | Windows,
    factor: tuple[Any, ...],
    numbers: Numbers,
    hyper: Hyperparameters,
) -> Launch:
    """Return the launch for what the gradient lists."""
    given = *factor, *scalars(variant, numbers, hyper.clipvalue)
    return listed(parameter, variant, kernels.full_update(variant), gradient, given, tables, hyper)


def listed(
    parameter: Updatable,
    variant: Variant,
    update: kernels.Update,
    gradient: IndexedSlices | Windows,
    given: tuple[Any, ...],
    tables: list[Array],
    hyper: Hyperparameters,
) -> Launch:
    """Return the launch of an update of what a gradient lists, given its inputs and what it changes."""
    parameter.notes = misses = parameter.notes or Misses()
    given = *given, misses.array, *tables
    if isinstance(gradient, Windows):
        launch = windows.launch(gradient, parameter.shape, variant, update, given, hyper)
    else:
        launch = rows.launch(gradient, parameter.shape[0], variant, update, given, hyper)
    return launch._replace(then=misses.record)
