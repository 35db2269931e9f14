"""Sparse gradients: what they list is updated, and what decays without them, and nothing waits for the device."""

from typing import Any, NamedTuple

from rmsprop.arrays.libraries import Array
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Updatable
from rmsprop.formula import AVERAGE, Hyperparameters, Numbers
from rmsprop_cupy import windows
from rmsprop_cupy.counters import Misses
from rmsprop_cupy.kernels import full_change
from rmsprop_cupy.launches import Launch, scalars
from rmsprop_cupy.passes import averaging, decaying, shrinking
from rmsprop_cupy.source import Variant


def report_misses(parameter: Updatable) -> None:
    """Raise ``ValueError`` if earlier steps are known to have left out rows or windows of a variable."""
    misses: Misses | None = parameter.notes
    if misses is not None:
        misses.report(parameter.shape)


class Passes(NamedTuple):
    """What a sparse gradient does to all elements, and what is then left to do for those that it lists."""

    begun: list[Launch]
    finished: list[Launch]
    variant: Variant
    tables: list[Array]
    numbers: Numbers


def passes(
    parameter: Updatable, variant: Variant, tables: list[Array], factor: tuple[Any, ...], hyper: Hyperparameters
) -> Passes:
    """Return the launches for all elements of a variable and its slots, before and after those that are listed.

    With ``hyper.lazy`` off, all others decay, those of averages only without momentum. The average of the
    variable, the last of the tables, is that of all elements.
    """
    numbers, by_name = hyper.numbers_of(parameter.multipliers), dict(zip(("v", *hyper.slots), tables, strict=True))
    begun, finished = [], []
    if hyper.averages_decay:
        for name in [name for name in hyper.slots if name != AVERAGE]:
            begun.append(decaying(variant, factor, name, by_name[name], numbers.rho))
        numbers = numbers._replace(rho=1.0)  # what is listed decays with all else
    if hyper.variables_shrink:
        begun.append(shrinking(variant, factor, tables[0], numbers))
        variant = without(variant, "shrinkage")
    if variant.average:
        finished.append(averaging(variant, factor, tables[0], tables[-1], numbers))
        variant, tables = without_average(variant), tables[:-1]
    return Passes(begun, finished, variant, tables, numbers)


def launches(
    parameter: Updatable,
    variant: Variant,
    tables: list[Array],
    gradient: Windows,
    factor: tuple[Any, ...],
    hyper: Hyperparameters,
) -> list[Launch]:
    """Return the launches that update those elements of a variable and its slots that windows cover."""
    begun, finished, variant, tables, numbers = passes(parameter, variant, tables, factor, hyper)
    if gradient.values.size:
        parameter.notes = misses = parameter.notes or Misses()
        given = (*factor, *scalars(variant, numbers, hyper.clipvalue), misses.array, *tables)
        launch = windows.launch(gradient, parameter.shape, variant, full_change(variant), given, hyper)
        begun.append(launch._replace(then=misses.record))
    return begun + finished


def without_average(variant: Variant) -> Variant:
    """Return a variant of the formula without the average of the variable."""
    return without(variant, "ema", "one_minus_ema")._replace(average=False)


def without(variant: Variant, *terms: str) -> Variant:
    """Return a variant of the formula without some terms."""
    return variant._replace(terms=tuple([term for term in variant.terms if term not in terms]))
