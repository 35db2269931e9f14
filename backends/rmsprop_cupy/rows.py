"""Sparse gradients: the update of the rows that are listed, without waiting for the device."""

from typing import Any

import cupy

from rmsprop.backends import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import Parameter
from rmsprop_cupy import kernels
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


def update(
    parameter: Parameter,
    variant: Variant,
    tables: list[Array],
    gradient: IndexedSlices,
    factor: tuple[Any, ...],
    hyper: Hyperparameters,
) -> None:
    """Update the rows of a variable and its slots that a sparse gradient lists."""
    scalars = numbers(hyper)
    if not hyper.lazy and hyper.momentum is None:
        for average in tables[1:]:
            average *= average.dtype.type(hyper.rho)
        scalars = (scalars[0], 1.0, *scalars[2:])  # the listed rows have decayed, too
    values = cupy.ascontiguousarray(paired(gradient.values, hyper))
    if values.size == 0:
        return
    kept = kept_of(parameter)
    kept.misses = misses = kept.misses or Misses()
    order = cupy.argsort(gradient.indices, kind="stable")
    ordered = gradient.indices[order].astype(cupy.int64)
    columns, height = values.size // len(values), parameter.shape[0]
    kernel = kernels.rows_kernel(variant, kernels.OPTIONS)
    sizes = len(values), columns, height
    kernel(values, order, ordered, *sizes, *factor, *scalars, misses.array, *tables, size=values.size)
