"""Gradients in any of their forms as arrays of NumPy in double precision."""

from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host, is_array, to_numpy
from rmsprop.gradient_checks.losses import EPSILONS, is_numeric
from rmsprop.variables.nested import outline
from rmsprop.variables.variable import array_of


def dense(gradient: Any, shape: tuple[int, ...], name: str) -> Host:
    """Return a gradient as an array of float64 or complex128.

    Parameters
    ----------
    gradient : array, number, nested list, None, IndexedSlices, or an object with a method ``dense(shape)``
        None stands for zeros.
    shape : tuple of int
        That of the variable.
    name : str
        That of the variable, for messages.

    Raises
    ------
    TypeError
        If there is anything but numbers.
    ValueError
        If the shape is another one, or a row out of range.
    """
    if gradient is None:
        return np.zeros(shape)
    if isinstance(gradient, IndexedSlices):
        return _summed(gradient, shape, name)
    if hasattr(gradient, "dense"):
        gradient = gradient.dense(shape)
    array = _numbers(gradient, name)
    if array.shape != shape:
        raise ValueError(f"The gradient of {name} has shape {array.shape}; expected {shape}.")
    return array


def precision_of(gradient: Any) -> float:
    """Return the epsilon of a gradient's dtype, or that of float64 if it has none."""
    dtype = getattr(getattr(gradient, "values", gradient), "dtype", None)
    return 2.0**-52 if dtype is None else EPSILONS.get(dtypes.name_of(dtype), 2.0**-52)


def _summed(gradient: IndexedSlices, shape: tuple[int, ...], name: str) -> Host:
    values, indices = _numbers(gradient.values, name), np.asarray(_host(gradient.indices))
    if not shape or values.shape != (*indices.shape, *shape[1:]) or indices.ndim != 1:
        raise ValueError(
            f"The gradient of {name}, of shape {shape}, has values of shape {values.shape} and indices of shape "
            f"{indices.shape}; expected (k, *{shape[1:]}) and (k,)."
        )
    if np.any((indices < 0) | (indices >= shape[0])):
        raise ValueError(f"The gradient of {name} has indices out of range; expected 0 to {shape[0] - 1}.")
    total = np.zeros(shape, values.dtype)
    np.add.at(total, indices, values)
    return total


def _numbers(values: Any, name: str) -> Host:
    """Return numbers in double precision."""
    try:
        array = np.asarray(_host(values))
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if not is_numeric(array):
        raise TypeError(f"The gradient of {name} must be an array of numbers; given {outline(values)}.")
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _host(values: Any) -> Any:
    values = array_of(values)
    return to_numpy(values) if is_array(values) else values
