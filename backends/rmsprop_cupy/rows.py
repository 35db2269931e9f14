"""Sparse gradients: the update of the rows that are listed, without waiting for the device."""

from typing import Any

import cupy

from rmsprop.backends import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop_cupy import kernels
from rmsprop_cupy.arguments import numbers, paired
from rmsprop_cupy.source import Variant

Array = Any


def update(
    variant: Variant, tables: list[Array], gradient: IndexedSlices, factor: tuple[Any, ...], hyper: Hyperparameters
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
    order = cupy.argsort(gradient.indices, kind="stable")
    ordered = gradient.indices[order].astype(cupy.int64)
    columns = values.size // len(values)
    kernel = kernels.rows_kernel(variant, kernels.OPTIONS)
    kernel(values, order, ordered, len(values), columns, *factor, *scalars, *tables, size=values.size)
