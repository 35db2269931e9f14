"""Norms of gradients and the factors that clip them, on the device and always with the same bits.

Blocks of threads sum squares of stretches of `CHUNK` elements, in double precision and a fixed order. One more
block adds these sums up for each gradient, in order, and makes factors of them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cupy
import numpy as np

from rmsprop.backends import Gradient, Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop_cupy import kernels
from rmsprop_cupy.arguments import paired
from rmsprop_cupy.columns import Column

Array = Any

CHUNK = 4_096
"""Elements that one block of threads sums up."""


class Plan:
    """Where the sums of gradients of given dtypes and sizes go.

    Attributes
    ----------
    addresses : Column
        The address of each gradient.
    groups : list of (dtype, table, int)
        For each dtype the table of its stretches, and where the sums of these start. A row of a table is the
        number of elements, the index of the first, and the position of the gradient.
    starts : cupy.ndarray
        Where the sums of each gradient start; the last one is the end.
    order : cupy.ndarray
        The position of the gradient that each of `starts` belongs to.
    sums, squares : cupy.ndarray of float64
    factors : dict of cupy.ndarray
        The same factors by their dtype, float64 and float32.
    """

    def __init__(self, kinds: tuple[tuple[str, int], ...]) -> None:
        self.addresses = Column(len(kinds))
        self.groups, order, counts, total = [], [], [], 0
        for dtype in dict.fromkeys(name for name, _ in kinds):
            members = [i for i, (name, _) in enumerate(kinds) if name == dtype]
            rows = [_rows(i, kinds[i][1]) for i in members]
            table = np.concatenate(rows)
            self.groups.append((dtype, cupy.asarray(table), total))
            total += len(table)
            order += members
            counts += [len(r) for r in rows]
        self.starts = cupy.asarray(np.cumsum([0, *counts], dtype=np.int64))
        self.order = cupy.asarray(np.array(order, np.int64))
        self.sums = cupy.zeros(total, cupy.float64)
        self.squares = cupy.zeros(len(kinds), cupy.float64)
        self.factors = {name: cupy.zeros(len(kinds), name) for name in ("float64", "float32")}


@lru_cache(maxsize=64)
def _plan(device: int, stream: int, kinds: tuple[tuple[str, int], ...]) -> Plan:
    """Return a plan of one stream alone, in which one use of its memory comes after the other."""
    return Plan(kinds)


def _rows(position: int, size: int) -> np.ndarray[Any, Any]:
    starts = np.arange(0, size, CHUNK, dtype=np.uint64)
    counts = np.minimum(np.uint64(CHUNK), np.uint64(size) - starts)
    return np.stack([counts, starts, np.full_like(starts, position)], axis=1)


def factors(gradients: Sequence[Gradient], hyper: Hyperparameters) -> dict[str, Array]:
    """Return the factors by which gradients on one device are to be multiplied, in both precisions."""
    return _measured(gradients, hyper).factors


def squared_norms(gradients: Sequence[Gradient], hyper: Hyperparameters) -> Array:
    """Return the sum of ``|g|**2`` of each gradient after clipping by value, in double precision."""
    return _measured(gradients, hyper).squares.copy()


def _measured(gradients: Sequence[Gradient], hyper: Hyperparameters) -> Plan:
    values = [g.values if isinstance(g, IndexedSlices) else g for g in gradients]
    arrays = [cupy.ascontiguousarray(paired(a, hyper)) for a in values]
    with arrays[0].device:
        kinds = tuple((a.dtype.name, a.size) for a in arrays)
        plan = _plan(arrays[0].device.id, cupy.cuda.get_current_stream().ptr, kinds)
        addresses = plan.addresses.write(np.array([a.data.ptr for a in arrays], np.uint64))
        for dtype, table, start in plan.groups:
            if len(table):
                kernel = kernels.norm_kernel(dtype, hyper.clipvalue is not None, kernels.OPTIONS)
                limit = kernels.REAL[dtype](hyper.clipvalue or 0.0)
                kernel((len(table),), (kernels.THREADS,), (table, addresses, plan.sums[start:], limit))
        limits = [
            np.float64(-1.0 if limit is None else limit) for limit in (hyper.clipnorm, hyper.global_clipnorm)
        ]
        results = plan.squares, *plan.factors.values()
        arguments = (plan.sums, plan.starts, plan.order, len(arrays), *limits, *results)
        kernels.factor_kernel()((1,), (kernels.THREADS,), arguments)
    return plan
