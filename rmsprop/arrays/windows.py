"""Windows: gradients of patches of an array, which may overlap, and where they start."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, Host, as_beside, is_array, namespace, refuse_subclass, to_numpy

LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Windows:
    """A gradient that is zero outside of some windows of an array.

    Parameters
    ----------
    values : array, shape ``(n, *patch)``
        The gradient of each window. All have the same shape, with as many axes as the variable.
    starts : array of integers, shape (n, ndim), or sequence of n tuples of slices
        The index of the first element of each window, from where on it lies inside of the variable. Slices need
        bounds from 0 on, and are as long as the patch. An element that lies in several windows receives the sum
        of its values, added up in the order of the windows.
    dense_shape : tuple of int, optional
        Shape of the variable; checked against it where given.

    Notes
    -----
    The optimizer checks shapes, dtypes and range when the gradient is applied. The step has the bits of that of
    ``variable.reshape(-1)`` by `indexed`: elements outside of all windows stay as they are, unless ``lazy=False``,
    and clipping by value or norm sees `values`, before the sum. Its time follows the windows, not the variable.

    Examples
    --------
    >>> import numpy as np, rmsprop
    >>> image = np.ones((3, 4), np.float32)
    >>> values = np.array([[[1, 1]], [[2, 2]]], np.float32)
    >>> gradient = rmsprop.Windows(values, [(0, 0), (0, 1)])
    >>> _ = rmsprop.RMSprop(learning_rate=0.1).apply_gradients([(gradient, image)])
    >>> image.round(3)
    array([[0.684, 0.684, 0.684, 1.   ],
           [1.   , 1.   , 1.   , 1.   ],
           [1.   , 1.   , 1.   , 1.   ]], dtype=float32)
    """

    values: Any
    starts: Any
    dense_shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        shape = "" if self.dense_shape is None else f", dense_shape={self.dense_shape!r}"
        return f"Windows(values={self.values!r}, starts={self.starts!r}{shape})"

    def indexed(self, shape: Sequence[int]) -> IndexedSlices:
        """Return the gradient of the same elements of ``variable.reshape(-1)``.

        Parameters
        ----------
        shape : sequence of int
            Shape of the variable.

        Returns
        -------
        IndexedSlices
            With elements listed window by window, each in C order.

        Raises
        ------
        TypeError
            If `starts` are no integers.
        ValueError
            If a shape does not fit, or a window does not lie inside of the variable.

        Examples
        --------
        >>> import numpy as np
        >>> from rmsprop import Windows
        >>> Windows(np.ones((1, 2, 2)), [(1, 0)]).indexed((3, 4)).indices
        array([4, 5, 8, 9])
        """
        values, shape = self.values if is_array(self.values) else np.asarray(self.values), tuple(shape)
        patch = checked_patch(values, shape)
        starts = starts_on_host(self.starts, values.shape[0], patch)
        check_inside(starts, patch, shape)
        slices = flat(Windows(values, starts), shape)
        return IndexedSlices(slices.values, as_beside(slices.indices, values), slices.dense_shape)


def flat(windows: Windows, shape: Sequence[int]) -> IndexedSlices:
    """Return the gradient of the same elements of a flat variable, with indices where the starts are."""
    values, starts = windows.values, windows.starts
    first, within = firsts(starts, shape), as_beside(offsets(values.shape[1:], shape), starts)
    indices = namespace(starts).reshape(first[:, None] + within, (-1,))
    return IndexedSlices(namespace(values).reshape(values, (-1,)), indices, (math.prod(shape),))


def firsts(starts: Array, shape: Sequence[int]) -> Array:
    """Return the place of the first element of each window in a flat array."""
    first: Array = starts[:, 0]
    for k, size in enumerate(shape[1:], 1):
        first = first * size + starts[:, k]
    return first


def offsets(patch: Sequence[int], shape: Sequence[int]) -> Host:
    """Return how far each element of a patch lies from its first one in a flat array, in C order."""
    each = np.zeros(1, np.int64)
    for k, size in enumerate(patch):
        each = (each[:, None] + np.arange(size) * math.prod(shape[k + 1 :])).reshape(-1)
    return each


def checked_patch(values: Array, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the patches; ``ValueError`` unless they can lie inside of a variable."""
    patch = tuple(values.shape[1:])
    if len(values.shape) != 1 + len(shape) or any(p > n for p, n in zip(patch, shape, strict=True)):
        raise ValueError(
            f"values has shape {tuple(values.shape)}; expected (n, *patch), where the patch has the axes of the "
            f"variable, and is no larger: {tuple(shape)}."
        )
    return patch


def starts_on_host(starts: Any, count: int, patch: Sequence[int]) -> Host:
    """Return the starts of so many windows in a new contiguous array of NumPy, of int64 and shape (n, ndim).

    Raises
    ------
    TypeError
        If they are not integers.
    ValueError
        If the shape is another one, or slices are not as long as the patch.
    """
    starts = _as_array(starts, patch)
    check_starts(starts, count, patch)
    starts = to_numpy(starts)  # a copy: nobody else can change it after the checks
    starts = np.minimum(starts, np.uint64(LARGEST)) if starts.dtype.kind == "u" else starts
    return np.ascontiguousarray(starts, np.int64)


def check_starts(starts: Array, count: int, patch: Sequence[int]) -> None:
    """Raise ``TypeError`` unless an array is one of integers, ``ValueError`` unless its shape is (n, ndim)."""
    refuse_subclass(starts, "starts")
    if not namespace(starts).isdtype(starts.dtype, "integral"):
        raise TypeError(f"starts must be integers; given dtype {dtypes.name_of(starts.dtype)}.")
    if tuple(starts.shape) != (count, len(patch)):
        raise ValueError(f"starts has shape {tuple(starts.shape)}; expected {(count, len(patch))}.")


def check_inside(starts: Host, patch: Sequence[int], shape: Sequence[int]) -> None:
    """Raise ``ValueError`` unless all windows lie inside of a variable."""
    last = np.array(shape, np.int64) - np.array(patch, np.int64)
    is_outside = ((starts < 0) | (starts > last)).any(axis=1)
    if is_outside.any():
        i = int(is_outside.argmax())
        raise ValueError(
            f"window {i} of shape {tuple(patch)} starts at {tuple(starts[i].tolist())}; starts must be >= 0 and "
            f"<= {tuple(last.tolist())}, so that it lies inside of {tuple(shape)}."
        )


def _as_array(starts: Any, patch: Sequence[int]) -> Array:
    """Return starts, which may be nested lists or slices, as an array."""
    if isinstance(starts, list | tuple):
        if any([_has_slices(each) for each in starts]):
            starts = [_starts_of(i, window, patch) for i, window in enumerate(starts)]
        try:
            starts = np.array(starts) if len(starts) else np.zeros((0, len(patch)), np.int64)
        except (ValueError, OverflowError):
            raise TypeError(f"starts must be integers, as many for each window; given {starts!r:.80}.") from None
    if not is_array(starts):
        raise TypeError(f"starts must be an array of integers or slices; given {starts!r:.80}.")
    return starts


def _has_slices(window: Any) -> bool:
    return isinstance(window, slice) or (
        isinstance(window, list | tuple) and any([isinstance(each, slice) for each in window])
    )


def _starts_of(i: int, window: Any, patch: Sequence[int]) -> list[int]:
    """Return where the slices of a window start."""
    slices = window if isinstance(window, list | tuple) else (window,)
    if len(slices) == len(patch) and all(map(_is_part, slices, patch)):
        return [operator.index(each.start) for each in slices]
    raise ValueError(
        f"starts[{i}] is {window!r}; expected {len(patch)} slices with bounds >= 0 and step 1, of the lengths of "
        f"the patch, {tuple(patch)}."
    )


def _is_part(part: Any, size: int) -> bool:
    """Tell whether a slice has bounds from 0 on, and is of this size."""
    try:
        start, stop = operator.index(part.start), operator.index(part.stop)
        return part.step in (None, 1) and 0 <= start == stop - size
    except (AttributeError, TypeError):
        return False
