"""Sparse gradients: what they list is updated, and what decays without them, and nothing waits for the device."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from rmsprop.arrays.libraries import Array
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Updatable
from rmsprop.formula import AVERAGE, Hyperparameters, Numbers
from rmsprop_cupy import kernels, windows
from rmsprop_cupy.counters import Misses
from rmsprop_cupy.launches import Launch, scalars
from rmsprop_cupy.source import Variant, number_type


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
    of_pass = partial(_pass, variant, factor if variant.guarded else ())
    begun, finished = [], []
    if hyper.averages_decay:
        for name in [name for name in hyper.slots if name != AVERAGE]:
            begun.append(of_pass(f"{name} = times({name}, rho);", {"rho": numbers.rho}, {name: by_name[name]}))
        numbers = numbers._replace(rho=1.0)  # what is listed decays with all else
    if hyper.variables_shrink:
        number = number_type(variant.dtype)
        statement = f"v = ({number})v - times(({number})v, shrinkage);"
        begun.append(of_pass(statement, {"shrinkage": numbers.shrinkage}, {"v": tables[0]}))
        variant = _without(variant, "shrinkage")
    if variant.average:
        number = number_type(variant.dtype)
        statement = f"average = times(average, ema) + times(({number})v, one_minus_ema);"
        means = {"ema": numbers.ema, "one_minus_ema": numbers.one_minus_ema}
        finished.append(of_pass(statement, means, {name: by_name[name] for name in ("v", AVERAGE)}))
        variant, tables = _without(variant, *means)._replace(average=False), tables[:-1]
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
        launch = windows.update(gradient, parameter.shape, variant, given, hyper)
        begun.append(launch._replace(then=misses.record))
    return begun + finished


def _without(variant: Variant, *terms: str) -> Variant:
    return variant._replace(terms=tuple([term for term in variant.terms if term not in terms]))


def _pass(
    variant: Variant,
    factor: tuple[Any, ...],
    statement: str,
    numbers: Mapping[str, float | None],
    arrays: dict[str, Array],
) -> Launch:
    """Return the launch of a statement for all elements of arrays, of which the last is changed."""
    of_kind = Variant(variant.dtype, True, True, False, bool(factor))
    of_kind = of_kind._replace(guarded=variant.guarded, average=AVERAGE in arrays)
    kernel = kernels.pass_kernel(of_kind, statement, tuple(numbers), tuple(arrays), kernels.OPTIONS)
    return Launch(next(iter(arrays.values())).device, kernel, (*factor, *numbers.values(), *arrays.values()))
