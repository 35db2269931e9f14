"""Rows: the update of those that a sparse gradient lists, each after all of its gradients have been added up."""

from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import kernels
from rmsprop_cupy.kernels import Update
from rmsprop_cupy.launches import Launch, paired
from rmsprop_cupy.source import Variant


def launch(
    gradient: IndexedSlices,
    height: int,
    variant: Variant,
    update: Update,
    given: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Launch:
    """Return the launch for the rows that are listed of a variable with so many rows."""
    values = cupy.ascontiguousarray(paired(gradient.values, hyper))
    order, ordered = by_row(gradient.indices)
    sizes = len(values), values.size // len(values), height
    kernel = kernels.rows_kernel(variant, kernels.OPTIONS, update)
    return Launch(values.device, kernel, (values, order, ordered, *sizes, *given), {"size": values.size})


def by_row(indices: Array) -> tuple[Array, Array]:
    """Return the positions of rows in a list in rising order of rows, and the rows in that order."""
    order = cupy.argsort(indices, kind="stable")
    return order, _signed(indices[order])


def _signed(indices: Array) -> Array:
    """Return indices as int64; those beyond stay beyond the rows of any variable."""
    if indices.dtype == np.uint64:
        indices = cupy.minimum(indices, np.uint64(np.iinfo(np.int64).max))
    return indices.astype(cupy.int64)
