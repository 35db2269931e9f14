"""Passes over all elements of an array: what sparse gradients change beside what they list."""

from collections.abc import Mapping
from typing import Any

from rmsprop.arrays.libraries import Array
from rmsprop.formula import AVERAGE, Numbers
from rmsprop_cupy import kernels
from rmsprop_cupy.launches import Launch
from rmsprop_cupy.source import Variant, number_type


def decaying(variant: Variant, factor: tuple[Any, ...], name: str, slot: Array, rho: float) -> Launch:
    """Return the launch that lets a slot decay."""
    return _pass(variant, factor, f"{name} = times({name}, rho);", {"rho": rho}, {name: slot})


def shrinking(variant: Variant, factor: tuple[Any, ...], variable: Array, numbers: Numbers) -> Launch:
    """Return the launch that lets a variable shrink, by decoupled weight decay."""
    number = number_type(variant.dtype)
    statement = f"v = ({number})v - times(({number})v, shrinkage);"
    return _pass(variant, factor, statement, {"shrinkage": numbers.shrinkage}, {"v": variable})


def averaging(
    variant: Variant, factor: tuple[Any, ...], variable: Array, average: Array, numbers: Numbers
) -> Launch:
    """Return the launch that averages a variable."""
    number = number_type(variant.dtype)
    statement = f"average = times(average, ema) + times(({number})v, one_minus_ema);"
    means = {"ema": numbers.ema, "one_minus_ema": numbers.one_minus_ema}
    return _pass(variant, factor, statement, means, {"v": variable, AVERAGE: average})


def _pass(
    variant: Variant,
    factor: tuple[Any, ...],
    statement: str,
    numbers: Mapping[str, float | None],
    arrays: dict[str, Array],
) -> Launch:
    """Return the launch of a statement for all elements of arrays, of which the last is changed."""
    factor = factor if variant.guarded else ()
    of_kind = Variant(variant.dtype, True, True, False, bool(factor))
    of_kind = of_kind._replace(guarded=variant.guarded, average=AVERAGE in arrays)
    kernel = kernels.pass_kernel(of_kind, statement, tuple(numbers), tuple(arrays), kernels.OPTIONS)
    return Launch(next(iter(arrays.values())).device, kernel, (*factor, *numbers.values(), *arrays.values()))
