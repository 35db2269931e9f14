"""Many arrays in one launch, through a table of their addresses.

A row of the table stands for up to `kernels.CHUNK` elements of one array. It holds their number, the index of the
first in the array, the array's position in the list, and the addresses of the first in variable and slots. The
table is made once. Where the gradients are is written for each step, if it has changed.
"""

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

from rmsprop.backends import Hyperparameters
from rmsprop.parameters import Parameter
from rmsprop_cupy import kernels
from rmsprop_cupy.arguments import numbers, paired, slots, variant_of
from rmsprop_cupy.columns import Column

Array = Any


class Plan:
    """The table of a list, and the addresses of the last gradients.

    Attributes
    ----------
    parameters : list of Parameter
    slot_count : int
        Columns of the table that are addresses.
    table : cupy.ndarray of uint64
    gradients : Column
        For each array the address of its gradient, and the position of its clipping factor.
    """

    def __init__(self, parameters: list[Parameter], hyper: Hyperparameters) -> None:
        self.parameters = parameters
        tables = [[paired(a, hyper) for a in slots(p, hyper)] for p in parameters]
        self.slot_count = len(tables[0])
        self.table = cupy.asarray(np.concatenate([_rows(k, arrays) for k, arrays in enumerate(tables)]))
        self.gradients = Column(2 * len(parameters))


def update(
    parameters: list[Parameter],
    gradients: Sequence[Array],
    positions: Sequence[int],
    factors: Array | None,
    hyper: Hyperparameters,
) -> None:
    """Update contiguous variables of one device and dtype; `positions` are those of their factors."""
    first = parameters[0].variable.array
    with first.device:
        plan = parameters[0].plan
        count = 2 + (hyper.momentum is not None) + hyper.centered
        if plan is None or plan.slot_count != count or plan.parameters != parameters:
            plan = parameters[0].plan = Plan(parameters, hyper)
        if plan.table.size == 0:
            return
        written = np.empty(2 * len(gradients), np.uint64)
        written[::2] = [gradient.data.ptr for gradient in gradients]
        written[1::2] = positions
        columns = plan.gradients.write(written)
        sample = paired(first, hyper)
        kernel = kernels.list_kernel(variant_of(sample, hyper, factors), kernels.OPTIONS)
        factor = () if factors is None else (factors,)
        size = plan.table.shape[0] * kernels.CHUNK
        kernel(sample, columns, *factor, *numbers(hyper), plan.table, size=size)


def _rows(position: int, arrays: Sequence[Array]) -> np.ndarray[Any, Any]:
    """Return the rows of the table for one variable and its slots."""
    size = arrays[0].size
    starts = np.arange(0, size, kernels.CHUNK, dtype=np.uint64)
    counts = np.minimum(np.uint64(kernels.CHUNK), np.uint64(size) - starts)
    addresses = [np.uint64(a.data.ptr) + starts * np.uint64(a.itemsize) for a in arrays]
    return np.stack([counts, starts, np.full_like(starts, position), *addresses], axis=1)
