"""Sparse gradients: the update of the rows that are listed, without waiting for the device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cupy

from rmsprop.backends import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import Parameter
from rmsprop_cupy import devices, kernels
from rmsprop_cupy.arguments import numbers, paired
from rmsprop_cupy.kept import kept_of
from rmsprop_cupy.misses import Misses
from rmsprop_cupy.source import Variant

Array = Any


def report_misses(parameter: Parameter) -> None:
    """Raise ``ValueError`` if earlier steps are known to have left out rows of a variable."""
    misses = kept_of(parameter).misses
    if misses is not None:
        misses.report(parameter.shape[0])


def launches(
    parameter: Parameter,
    variant: Variant,
    tables: list[Array],
    gradient: IndexedSlices,
    factor: tuple[Any, ...],
    hyper: Hyperparameters,
) -> list[Callable[[], object]]:
    """Return the launches that update the rows of a variable and its slots that a sparse gradient lists."""
    device = gradient.values.device
    scalars, averages = numbers(hyper), tables[1:]
    decays = not hyper.lazy and hyper.momentum is None
    if decays:
        scalars = (scalars[0], 1.0, *scalars[2:])  # the listed rows decay with all others
    begun: list[Callable[[], object]] = [
        partial(devices.launch, device, _decay, (average, hyper.rho)) for average in averages if decays
    ]
    values = cupy.ascontiguousarray(paired(gradient.values, hyper))
    if values.size == 0:
        return begun
    kept = kept_of(parameter)
    kept.misses = misses = kept.misses or Misses()
    order = cupy.argsort(gradient.indices, kind="stable")
    ordered = gradient.indices[order].astype(cupy.int64)
    sizes = len(values), values.size // len(values), parameter.shape[0]
    arguments = (values, order, ordered, *sizes, *factor, *scalars, misses.array, *tables)
    kernel = kernels.rows_kernel(variant, kernels.OPTIONS)
    return [
        *begun,
        partial(devices.launch, device, kernel, arguments, size=values.size),
        partial(devices.launch, device, misses.record, ()),
    ]


def _decay(average: Array, rho: float) -> None:
    average *= average.dtype.type(rho)
