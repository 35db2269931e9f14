"""Gradients of halves: added up in single precision, and rounded once."""

from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import DType, is_array, namespace, on_device
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Gradient, values_of, with_values
from rmsprop.distribute.reduction import summed_by_row
from rmsprop.state.parameters import Parameter
from rmsprop.variables.variable import array_of

HALVES = ("float16", "bfloat16")


def unrounded(given: Any, parameter: Parameter, checked: Gradient) -> Gradient:
    """Return the gradient of a half as it was given, if that is more precise than what has been checked.

    Windows stay as they are: kernels add them up in single precision.
    """
    if dtypes.name_of(parameter.dtype) not in HALVES or isinstance(checked, Windows):
        return checked
    array = array_of(values_of(given))
    if not is_array(array) or dtypes.name_of(array.dtype) in HALVES:
        return checked
    with on_device(array):
        single = namespace(array).astype(array, namespace(array).float32)
    return with_values(checked, single)


def rounded(total: Gradient, parameter: Parameter) -> Gradient:
    """Return a sum in the dtype of its variable; that of halves may exceed what they hold."""
    dtype = parameter.variable.array.dtype
    if values_of(total).dtype == dtype:
        return total
    if isinstance(total, IndexedSlices):
        total = summed_by_row(total)
        return IndexedSlices(_cast(total.values, dtype), total.indices)
    return _cast(total, dtype)


def _cast(array: Any, dtype: DType) -> Any:
    with on_device(array), np.errstate(all="ignore"):
        return namespace(array).astype(array, dtype)
