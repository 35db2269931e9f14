"""Sparse gradients: the update of the rows that are listed, without waiting for the device."""

from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import kernels
from rmsprop_cupy.counters import Misses
from rmsprop_cupy.launches import Launch, numbers, paired
from rmsprop_cupy.source import Variant


def report_misses(parameter: Updatable) -> None:
    """Raise ``ValueError`` if earlier steps are known to have left out rows of a variable."""
    misses: Misses | None = parameter.notes
    if misses is not None:
        misses.report(parameter.shape[0])


def launches(
    parameter: Updatable,
    variant: Variant,
    tables: list[Array],
    gradient: IndexedSlices,
    factor: tuple[Any, ...],
    hyper: Hyperparameters,
) -> list[Launch]:
    """Return the launches that update the rows of a variable and its slots that a sparse gradient lists."""
    device = gradient.values.device
    scalars, averages = numbers(hyper), tables[1:]
    decays = not hyper.lazy and hyper.momentum is None
    if decays:
        scalars = (*hyper.numbers._replace(rho=1.0), scalars[-1])  # the listed rows decay with all others
    begun = [_decay(variant, average, factor, hyper.rho) for average in averages if decays]
    values = cupy.ascontiguousarray(paired(gradient.values, hyper))
    if values.size == 0:
        return begun
    parameter.notes = misses = parameter.notes or Misses()
    order = cupy.argsort(gradient.indices, kind="stable")
    ordered = _signed(gradient.indices[order])
    sizes = len(values), values.size // len(values), parameter.shape[0]
    arguments = (values, order, ordered, *sizes, *factor, *scalars, misses.array, *tables)
    kernel = kernels.rows_kernel(variant, kernels.OPTIONS)
    return [*begun, Launch(device, kernel, arguments, {"size": values.size}, misses.record)]


def _decay(variant: Variant, average: Array, factor: tuple[Any, ...], rho: float) -> Launch:
    """Return the launch that lets an average decay."""
    if variant.guarded:
        return Launch(average.device, kernels.decay_kernel(variant), (*factor, rho, average))
    return Launch(average.device, cupy.multiply, (average, average.dtype.type(rho), average))


def _signed(indices: Array) -> Array:
    """Return indices as int64; those beyond stay beyond the rows of any variable."""
    if indices.dtype == np.uint64:
        indices = cupy.minimum(indices, np.uint64(np.iinfo(np.int64).max))
    return indices.astype(cupy.int64)
