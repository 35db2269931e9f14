"""Views of arrays as the kernels read them: with one or two axes, and with elements that Numba knows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from rmsprop.arrays.libraries import Host

Array = Host


def encoded(array: Any, complex_as_real: bool) -> Any:
    """Return a view with elements that Numba knows: halves as integers, complex as pairs if wanted."""
    if array is None or array.dtype.char in "fd":
        return array
    if array.dtype.itemsize == 2:
        return array.view(np.uint16 if array.dtype.kind == "f" else np.int16)
    if array.dtype.kind == "c" and complex_as_real:
        return as_strided(array.real, (*array.shape, 2), (*array.strides, array.itemsize // 2))
    return array


def flat(arrays: Sequence[Array | None]) -> list[Array | None] | None:
    """Return views with one axis, if all arrays lie in memory in one order and without gaps."""
    flags = [a.flags for a in arrays if a is not None]
    if all([f.c_contiguous for f in flags]):
        return [a if a is None or a.ndim == 1 else a.reshape(-1) for a in arrays]
    if all([f.f_contiguous for f in flags]):
        return [a if a is None else a.T.reshape(-1) for a in arrays]
    return None


def matrices(arrays: Sequence[Array | None]) -> Iterator[list[Any]]:
    """Yield views with one or two axes that together are the arrays, of any strides.

    Axes are merged where all arrays allow it, and the last ones are those that lie close in memory.
    """
    first = next(a for a in arrays if a is not None)
    ones = [k for k in range(first.ndim) if first.shape[k] == 1]
    axes = sorted((k for k in range(first.ndim) if first.shape[k] > 1), key=lambda k: -abs(first.strides[k]))
    first_of_ones: Any = (*[0] * len(ones), ...)  # without the dots, a single element would not be a view
    turned = [a if a is None else a.transpose(*ones, *axes)[first_of_ones] for a in arrays]
    shape = _merged_shape([a for a in turned if a is not None]) or [1]
    merged = [a if a is None else a.reshape(shape) for a in turned]  # a view, as only axes that are one are merged
    for index in np.ndindex(*shape[:-2]):
        yield [a if a is None else a[index] for a in merged]


def _merged_shape(arrays: Sequence[Array]) -> list[int]:
    """Return the shape in which neighbouring axes that are one in all arrays are merged."""
    shape: list[int] = []
    for k, n in enumerate(arrays[0].shape):
        if shape and all(a.strides[k - 1] == a.strides[k] * n for a in arrays):
            shape[-1] *= n
        else:
            shape.append(n)
    return shape


def has_rows(array: Array) -> bool:
    """Tell whether each entry of the first axis lies in memory in C order, without gaps, and aligned."""
    return array.ndim > 0 and len(array) > 0 and array[0].flags.c_contiguous and array.flags.aligned
