"""Many arrays in one launch, through a table of their addresses.

A row of the table stands for elements of one array, of which `kernels.Split` tells how many there are at most. It
holds their number, the index of the first in the array, the array's position in the step's list, and the addresses
of the first in variable and slots. The table is made once. Where the gradients are is written for each step, if it
has changed.
"""

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import kernels
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.launches import Launch, paired, slots, variant_of
from rmsprop_cupy.streams import hold

FEW = 3
"""Arrays up to which each gets a launch of its own, which needs no table."""


class Table:
    """The table of a list.

    Attributes
    ----------
    positions : list of int
        Where its parameters stand in the step's list.
    slots : tuple of str
        The names of those whose addresses the table has.
    rows : cupy.ndarray of uint64
    """

    def __init__(self, parameters: list[Updatable], positions: list[int], hyper: Hyperparameters) -> None:
        self.positions, self.slots = positions, hyper.slots
        arrays = [[paired(a, hyper) for a in slots(p, hyper)] for p in parameters]
        rows = [_rows(k, each) for k, each in zip(positions, arrays, strict=True)]
        self.rows = cupy.asarray(np.concatenate(rows))


def launches(
    parameters: list[Updatable],
    positions: list[int],
    gradients: Sequence[Array],
    factors: Array | None,
    hyper: Hyperparameters,
    kept: Kept,
) -> list[Launch]:
    """Return the launch for contiguous variables of one device and dtype.

    `gradients` and `factors` are those of the whole step.
    """
    first = parameters[0].variable.array
    with first.device:
        sample = paired(first, hyper)
        variant = variant_of(sample, hyper, factors, kept.captured, kept.multipliers is not None)
        with kept.setup():
            table = table_of(kept, parameters, positions, hyper)
            addresses = kept.addresses(gradients)
            numbers = kept.scalars_of_list(variant, hyper)
    if table.rows.size == 0:
        return []
    factor = () if factors is None else (factors,)
    arguments = (sample, addresses, *factor, *numbers, table.rows)
    kernel = kernels.list_kernel(variant, kernels.SPLIT, kernels.OPTIONS)
    return [Launch(first.device, kernel, arguments, {"size": threads_of(table.rows)})]


def threads_of(rows: Array) -> int:
    """Return how many threads update the arrays in a table."""
    return len(rows) * kernels.SPLIT.chunk // kernels.SPLIT.vector


def key_of(array: Array) -> Any:
    """Return what arrays in one table have in common: device and dtype."""
    return array.data.device_id, array.dtype


def tables_of(kept: Kept, parameters: Sequence[Updatable], hyper: Hyperparameters) -> dict[Any, Table]:
    """Return the tables of a list of which all arrays have no gaps, on the current device."""
    alike: dict[Any, list[int]] = {}
    for i, parameter in enumerate(parameters):
        alike.setdefault(key_of(parameter.variable.array), []).append(i)
    listed = {key: members for key, members in alike.items() if len(members) > FEW}
    return {key: table_of(kept, [parameters[i] for i in ids], ids, hyper) for key, ids in listed.items()}


def table_of(kept: Kept, parameters: list[Updatable], positions: list[int], hyper: Hyperparameters) -> Table:
    """Return the table for parameters at these positions of a list, made anew if it was one of others."""
    key = key_of(parameters[0].variable.array)
    table: Table | None = kept.lists.get(key)
    if table is None or (table.slots, table.positions) != (hyper.slots, positions):
        hold(table)
        table = kept.lists[key] = Table(parameters, positions, hyper)
    return table


def _rows(position: int, arrays: Sequence[Array]) -> Host:
    """Return the rows of the table for one variable and its slots."""
    size = arrays[0].size
    chunk = kernels.SPLIT.chunk
    starts = np.arange(0, size, chunk, dtype=np.uint64)
    counts = np.minimum(np.uint64(chunk), np.uint64(size) - starts)
    addresses = [np.uint64(a.data.ptr) + starts * np.uint64(a.itemsize) for a in arrays]
    return np.stack([counts, starts, np.full_like(starts, position), *addresses], axis=1)
