"""Sums over ranks of dense and sparse gradients of any array library."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, DType, Host, as_beside, namespace, on_device, to_numpy
from rmsprop.arrays.windows import Windows
from rmsprop.backends import SPARSE
from rmsprop.distribute.link import Link
from rmsprop.distribute.sums import Shares, Vector

Sparse = TypeVar("Sparse", bound=IndexedSlices | Windows)

KEPT = 8
"""Layouts of lists that are kept, the most recent ones."""


class Reduction:
    """Adds up arrays over the ranks, in buckets that are used again.

    Parameters
    ----------
    link : Link
    bucket_bytes : int
    cuda_aware : bool, default False
        Whether MPI takes memory of devices.
    """

    def __init__(self, link: Link, bucket_bytes: int, cuda_aware: bool = False) -> None:
        self.link, self._bucket_bytes, self._cuda_aware = link, int(bucket_bytes), cuda_aware
        self._layouts: dict[Any, Any] = {}

    @property
    def divided(self) -> str:
        """What can be divided into shares, for messages."""
        return "NumPy arrays, or with NCCLStrategy CuPy arrays"

    def divides(self, array: Array) -> bool:
        """Tell whether arrays of this kind can be divided into shares."""
        return type(array) is np.ndarray or isinstance(array, np.memmap)

    def sums_of_shares(self, dtype: str, arrays: Sequence[Array]) -> list[Array]:
        """Return the sums of this rank's share of arrays of one library, flat; NumPy's lie in the buckets."""
        shares: Shares = self._kept(Shares, [array.size for array in arrays], np.dtype(dtype))
        shares.sum([flattened(array) for array in arrays])
        return list(shares.views)

    def exchanged(self, arrays: Sequence[Array], own: Sequence[Array]) -> Callable[[], None]:
        """Send this rank's shares of arrays of one dtype to all others; return what writes those received."""
        shares: Shares = self._kept(Shares, [array.size for array in arrays], arrays[0].dtype)
        flat = [array.reshape(-1) for array in arrays]
        shares.exchange(flat)
        return partial(shares.commit, flat)

    def _kept(self, kind: Any, sizes: Sequence[Any], dtype: DType, *place: Any) -> Any:
        key = kind, dtype, tuple(sizes), place
        if key not in self._layouts:
            dtype = np.dtype(dtype)
            length = max(self._bucket_bytes // dtype.itemsize, 1)
            self._layouts[key] = kind(self.link, sizes, dtype, length, *place[:1])
            if len(self._layouts) > KEPT:
                del self._layouts[next(iter(self._layouts))]
        return self._layouts[key]

    def sums(self, values: Sequence[Any]) -> list[Any]:
        """Return the sums of gradients over the ranks, in the dtype in which they are added up.

        Rows and windows are not added up, but listed together. NumPy arrays lie in the buckets, and are valid
        until the next sum.
        """
        sums: list[Any] = list(values)
        dense: dict[Any, list[int]] = {}
        for position, value in enumerate(values):
            if isinstance(value, SPARSE):
                sums[position] = self.gathered(value)
            else:
                dense.setdefault((summed_in(value.dtype), type(value)), []).append(position)
        for (dtype, _), positions in dense.items():
            if len(positions) == len(values):
                return self.dense(dtype, values)
            totals = self.dense(dtype, [values[i] for i in positions])
            for i, total in zip(positions, totals, strict=True):
                sums[i] = total
        return sums

    def dense(self, dtype: str, arrays: Sequence[Any]) -> list[Any]:
        """Return the sums of arrays of one library; those of NumPy lie in the buckets."""
        if self._cuda_aware and _is_cupy(arrays[0]):
            return self._dense_on_device(dtype, arrays)
        flat = [flattened(array) for array in arrays]
        # Those of another kind, but of the same shapes, must not arrive where these are still to be read.
        vector = self._kept(Vector, [tuple(array.shape) for array in arrays], dtype, np, type(arrays[0]))
        vector.sum(flat)
        if isinstance(arrays[0], np.ndarray):
            return list(vector.views)
        return [like(view, array) for view, array in zip(vector.views, arrays, strict=True)]

    def _dense_on_device(self, dtype: str, arrays: Sequence[Any]) -> list[Any]:
        import cupy

        with arrays[0].device as device:
            vector = self._kept(Vector, [array.shape for array in arrays], dtype, cupy, device.id)
            vector.sum([array.reshape(-1) for array in arrays])
            cupy.cuda.get_current_stream().synchronize()
        return list(vector.views)

    def gathered(self, gradient: Sparse) -> Sparse:
        """Return the rows or windows that all ranks list, in the order of the ranks."""
        places = places_of(gradient)
        values = np.ascontiguousarray(to_host(gradient.values))
        counts = self.link.counts([len(values)], "a sparse gradient")[:, 0]
        own = np.ascontiguousarray(to_host(places), np.int64)
        everywhere = self.link.gather(own, counts, "a sparse gradient")
        gathered = self.link.gather(values, counts, "a sparse gradient")
        return type(gradient)(like(gathered, gradient.values), like(everywhere, places))


def places_of(gradient: IndexedSlices | Windows) -> Array:
    """Return which rows a gradient lists, or where its windows start."""
    return gradient.indices if isinstance(gradient, IndexedSlices) else gradient.starts


def summed_in(dtype: DType) -> str:
    """Return the dtype in which sums are made: float32 for halves."""
    name = dtypes.name_of(dtype)
    return dtypes.COMPUTE.get(name, name)


def to_host(array: Array) -> Host:
    """Return an array as one of NumPy, without a copy where it is one; from a GPU through pinned memory."""
    if isinstance(array, np.ndarray):
        return array
    if _is_cupy(array):
        import cupyx

        with array.device:
            pinned: Host = cupyx.empty_pinned(array.shape, array.dtype)  # of CuPy's pool
            return array.get(out=pinned)  # type: ignore[no-any-return]
    return to_numpy(array)


def _is_cupy(array: Array) -> bool:
    return namespace(array).__name__.endswith("cupy")


def flattened(array: Array) -> Host:
    """Return the elements of an array in C order, in memory of the host; without a copy where they lie so."""
    return np.ascontiguousarray(to_host(array)).reshape(-1)


def stretch(array: Array, start: int, stop: int) -> Array:
    """Return some of the elements, in C order, of an array of NumPy or CuPy: where they lie, or else copied."""
    with on_device(array):
        return array.reshape(-1)[start:stop] if array.flags.c_contiguous else array.flat[start:stop]


def like(array: Host, example: Array) -> Array:
    """Return an array of the host as one of the library, and on the device, of another; the dtype stays."""
    if isinstance(example, np.ndarray):
        return array
    with on_device(example):
        return as_beside(array, example, copy=True)


@np.errstate(all="ignore")
def summed_by_row(slices: IndexedSlices) -> IndexedSlices:
    """Return sparse gradients, of the host, in which each row is listed once."""
    rows, places = np.unique(slices.indices, return_inverse=True)
    sums = np.zeros((len(rows), *slices.values.shape[1:]), slices.values.dtype)
    np.add.at(sums, places, slices.values)
    return IndexedSlices(sums, rows)
