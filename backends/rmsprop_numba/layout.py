"""Views of arrays as the kernels read them: with one or two axes, and with elements that Numba knows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

Array = np.ndarray[Any, Any]


def encoded(array: Array, complex_as_real: bool) -> Array:
    """Return a view with elements that Numba knows: halves as integers, complex as pairs if wanted."""
    if array.dtype.itemsize == 2:
        return array.view(np.uint16 if array.dtype.kind == "f" else np.int16)
    if array.dtype.kind == "c" and complex_as_real:
        half = array.itemsize // 2
        return as_strided(array.real, (*array.shape, 2), (*array.strides, half))
    return array


def flat(arrays: Sequence[Array]) -> list[Array] | None:
    """Return views with one axis, if all arrays lie in memory in one order and without gaps."""
    if all([a.flags.c_contiguous for a in arrays]):
        return [a if a.ndim == 1 else a.reshape(-1) for a in arrays]
    if all([a.flags.f_contiguous for a in arrays]):
        return [a.T.reshape(-1) for a in arrays]
    return None


def matrices(arrays: Sequence[Array]) -> Iterator[list[Array]]:
    """Yield views with one or two axes that together are the arrays, of any strides.

    Axes are merged where all arrays allow it, and the last ones are those that lie close in memory.
    """
    first = arrays[0]
    axes = sorted((k for k in range(first.ndim) if first.shape[k] > 1), key=lambda k: -abs(first.strides[k]))
    ones = [k for k in range(first.ndim) if first.shape[k] == 1]
    arrays = [a.transpose(*ones, *axes)[(0,) * len(ones)] for a in arrays]
    shape: list[int] = []
    for k, n in enumerate(arrays[0].shape):
        if shape and all(a.strides[k - 1] == a.strides[k] * n for a in arrays):
            shape[-1] *= n
        else:
            shape.append(n)
    merged = [a.reshape(shape, copy=False) for a in arrays]
    for index in np.ndindex(*shape[:-2]):
        yield [a[index] for a in merged]


def table(array: Array) -> Array | None:
    """Return a view with rows and columns, if the axes after the first can be merged."""
    try:
        return array.reshape(len(array), array.size // max(len(array), 1), copy=False)
    except ValueError:
        return None
