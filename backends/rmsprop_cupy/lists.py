"""Many arrays in one launch, through a table of their addresses.

A row of the table stands for up to `kernels.CHUNK` elements of one array. It holds their number, the index of the
first in the array, the array's position in the step's list, and the addresses of the first in variable and slots.
The table is made once. Where the gradients are is written for each step, if it has changed.
"""

from collections.abc import Sequence

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import kernels
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.launches import Launch, paired, slots, variant_of
from rmsprop_cupy.streams import hold


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
            table = _table(kept, parameters, positions, hyper)
            addresses = kept.addresses(gradients)
            numbers = kept.scalars_of_list(variant, hyper)
    if table.rows.size == 0:
        return []
    factor = () if factors is None else (factors,)
    arguments = (sample, addresses, *factor, *numbers, table.rows)
    kernel = kernels.list_kernel(variant, kernels.OPTIONS)
    return [Launch(first.device, kernel, arguments, {"size": table.rows.shape[0] * kernels.CHUNK})]


def _table(kept: Kept, parameters: list[Updatable], positions: list[int], hyper: Hyperparameters) -> Table:
    array = parameters[0].variable.array
    key = array.device.id, array.dtype
    table: Table | None = kept.lists.get(key)
    if table is None or (table.slots, table.positions) != (hyper.slots, positions):
        hold(table)
        table = kept.lists[key] = Table(parameters, positions, hyper)
    return table


def _rows(position: int, arrays: Sequence[Array]) -> Host:
    """Return the rows of the table for one variable and its slots."""
    size = arrays[0].size
    starts = np.arange(0, size, kernels.CHUNK, dtype=np.uint64)
    counts = np.minimum(np.uint64(kernels.CHUNK), np.uint64(size) - starts)
    addresses = [np.uint64(a.data.ptr) + starts * np.uint64(a.itemsize) for a in arrays]
    return np.stack([counts, starts, np.full_like(starts, position), *addresses], axis=1)
