"""Gradients that lie in the memory of what is being updated: they count as they were before the step."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate

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
    is_occupied = _Occupied(tables)

    def apart(array: Array) -> Array:
        if known is not None:
            if id(array) not in known and array.flags.owndata:
                return array
            root = owner(array)
            if id(root) not in known and _owns_memory(root):
                return array
        return array.copy() if is_occupied(*byte_bounds(array)) else array

    return [with_values(gradient, apart(values_of(gradient))) for gradient in gradients]


class _Occupied:
    """Tells whether stretches of memory have a part of what tables lie in, at which it looks when first asked.

    Parameters
    ----------
    tables : sequence of iterables of array or None
    """

    def __init__(self, tables: Sequence[Iterable[Array | None]]) -> None:
        self._tables = tables
        self._starts: list[int] | None = None
        self._stops: list[int] = []

    def __call__(self, start: int, stop: int) -> bool:
        if self._starts is None:
            bounds = sorted(byte_bounds(table) for each in self._tables for table in each if table is not None)
            self._starts = [low for low, _ in bounds]
            self._stops = list(accumulate([high for _, high in bounds], max))
        before = bisect_left(self._starts, stop)  # how many begin before it ends
        return before > 0 and self._stops[before - 1] > start


def _owns_memory(root: object) -> bool:
    return isinstance(root, np.ndarray) and root.flags.owndata
