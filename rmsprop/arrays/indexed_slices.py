"""Sparse gradients: the rows of a table that were used, and their indices."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class IndexedSlices:
    """A gradient that is zero outside of some rows.

    Parameters
    ----------
    values : array, shape ``(k, *variable.shape[1:])``
        The gradient of each listed row.
    indices : array of integers, shape (k,)
        The row of the variable that each of `values` belongs to, ``0 <= indices < variable.shape[0]``.
        A row that is listed more than once receives the sum of its values.
    dense_shape : tuple of int, optional
        Shape of the variable; checked against it where given.

    Notes
    -----
    The optimizer checks shapes, dtypes and range when the gradient is applied.

    Examples
    --------
    >>> import numpy as np, rmsprop
    >>> table = np.ones((1000, 2), np.float32)
    >>> gradient = rmsprop.IndexedSlices(np.array([[1, 1], [3, 3]], np.float32), np.array([7, 7]))
    >>> _ = rmsprop.RMSprop(learning_rate=0.1).apply_gradients([(gradient, table)])
    >>> table[6:9]
    array([[1.        , 1.        ],
           [0.68377227, 0.68377227],
           [1.        , 1.        ]], dtype=float32)
    """

    values: Any
    indices: Any
    dense_shape: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        shape = "" if self.dense_shape is None else f", dense_shape={self.dense_shape!r}"
        return f"IndexedSlices(values={self.values!r}, indices={self.indices!r}{shape})"
