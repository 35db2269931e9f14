"""Gradients that lie in the memory of what is being updated: they count as they were before the step."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
from numpy.lib.array_utils import byte_bounds

from rmsprop.arrays.libraries import Host
from rmsprop.arrays.memory import owner
from rmsprop.backends import Gradient, values_of, with_values

Array = Host


def owners_of(arrays: Iterable[Array]) -> frozenset[int]:
    """Return the identities of the arrays that own the memory; none if others may share it, as in buffers."""
    owners = [owner(array) for array in arrays]
    return frozenset(map(id, owners)) if all(map(_owns_memory, owners)) else frozenset()


def disjoint(
    gradients: Sequence[Gradient], owners: Sequence[AbstractSet[int]], tables: Sequence[Iterable[Array | None]]
) -> list[Gradient]:
    """Return the gradients, as copies where they lie in memory that is being updated.

    Parameters
    ----------
    gradients : sequence of array, IndexedSlices or Windows
    owners : sequence of sets of int
        For each variable, the owners of its memory and of its slots, see `owners_of`.
    tables : sequence of iterables of array or None
        For each variable, itself and its slots.
    """
    known = set().union(*owners) if all(owners) else None

    def apart(array: Array) -> Array:
        if known is not None:
            if id(array) not in known and array.flags.owndata:
                return array
            root = owner(array)
            if id(root) not in known and _owns_memory(root):
                return array
        start, stop = byte_bounds(array)
        bounds = [byte_bounds(table) for each in tables for table in each if table is not None]
        return array if all(stop <= low or high <= start for low, high in bounds) else array.copy()

    return [with_values(gradient, apart(values_of(gradient))) for gradient in gradients]


def _owns_memory(root: object) -> bool:
    return isinstance(root, np.ndarray) and root.flags.owndata
