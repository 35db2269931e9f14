"""Where NumPy arrays lie in memory, and whether they can be updated there."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

from rmsprop.backends import Gradient
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.memory import owner
from rmsprop.parameters import Parameter

Array = np.ndarray[Any, Any]


def memory(array: Array) -> Hashable:
    """Return what two views of the same elements have in common."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


def check_variable(array: Array) -> None:
    """Raise ``TypeError`` or ``ValueError`` if an array can't be updated in place."""
    kind = type(array)
    if kind is not np.ndarray and kind is not np.memmap:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__} can't be updated: its mask, unit or other meaning would be lost. "
            f"Expected a plain numpy.ndarray."
        )
    if not array.flags.writeable:
        raise ValueError("the array is read-only; expected one that can be written to.")
    if not array.dtype.isnative:
        raise TypeError(f"the array has byte order {array.dtype.str!r}; expected this machine's own.")


def zeros(like: Array, dtype: str) -> Array:
    """Return zeros with the shape and order of axes of an array, without gaps."""
    return np.zeros_like(like, dtype=dtype, order="K", subok=False)


def in_range(indices: Array, rows: int) -> bool:
    """Tell whether all indices are those of rows."""
    return indices.size == 0 or bool(indices.min() >= 0 and indices.max() < rows)


class Roots(NamedTuple):
    """Whose memory a variable and its slots lie in."""

    count: int
    """How many slots there were."""
    ids: tuple[int, ...]
    """Identities of the arrays that own the memory."""
    are_arrays: bool
    """Whether all memory is owned by arrays of NumPy, and not by a buffer that others may share unseen."""


def disjoint(parameters: Sequence[Parameter], gradients: Sequence[Gradient]) -> list[Gradient]:
    """Return the gradients, as copies where they lie in memory that is being updated."""
    roots = [_roots(parameter) for parameter in parameters]
    owners = roots[0].ids if len(roots) == 1 else {i for root in roots for i in root.ids}
    are_arrays = all([root.are_arrays for root in roots])

    def apart(array: Array) -> Array:
        root = array if array.base is None else owner(array)
        if are_arrays and _owns_memory(root) and id(root) not in owners:
            return array
        start, stop = byte_bounds(array)
        tables = [v.array for p in parameters for v in (p.variable, *p.slots.values())]
        is_apart = all(stop <= low or high <= start for low, high in map(byte_bounds, tables))
        return array if is_apart else array.copy()

    return [
        IndexedSlices(apart(g.values), g.indices) if isinstance(g, IndexedSlices) else apart(g) for g in gradients
    ]


def _roots(parameter: Parameter) -> Roots:
    roots: Roots | None = parameter.plan
    if roots is None or roots.count != len(parameter.slots):
        owners = [owner(v.array) for v in (parameter.variable, *parameter.slots.values())]
        roots = Roots(len(parameter.slots), tuple(map(id, owners)), all(map(_owns_memory, owners)))
        parameter.plan = roots
    return roots


def _owns_memory(root: object) -> bool:
    return isinstance(root, np.ndarray) and root.flags.owndata
