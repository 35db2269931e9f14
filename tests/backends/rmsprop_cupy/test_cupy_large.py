"""CuPy arrays whose indices need 64 bits."""

from types import SimpleNamespace

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Windows
from rmsprop.formula import NEUTRAL
from rmsprop.testing import hyper_of

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
from rmsprop_cupy import kernels, rows, sparse  # noqa: E402
from rmsprop_cupy.kept import Kept  # noqa: E402
from rmsprop_cupy.launches import make, scalars, variant_of  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]

BEYOND = 2**31 + 7  # an index that a 32-bit integer can't hold


def test_a_list_is_updated_beyond_an_index_of_32_bits():
    hyper = hyper_of(RMSprop())
    gradient, v, r = cupy.arange(5.0), cupy.zeros(5), cupy.zeros(5)
    variant = variant_of(v, hyper, None, None)
    shifted = (gradient.data.ptr - gradient.itemsize * BEYOND) % 2**64  # where its array would begin
    table = cupy.asarray([[5, BEYOND, 0, v.data.ptr, r.data.ptr]], np.uint64)
    addresses = cupy.asarray([shifted], np.uint64)
    kernel = kernels.list_kernel(variant, kernels.SPLIT, ())
    kernel(v, addresses, *scalars(variant, hyper.numbers_of(), hyper.clipvalue), table, size=kernels.SPLIT.chunk)
    np.testing.assert_allclose(r.get(), 0.1 * np.arange(5.0) ** 2)
    assert (v.get()[1:] < 0).all()


def test_rows_are_updated_beyond_an_index_of_32_bits():
    hyper = hyper_of(RMSprop())
    tables = [cupy.zeros(5), cupy.zeros(5)]
    shifted = [beginning_before(table, BEYOND) for table in tables]
    gradient = IndexedSlices(cupy.arange(1.0, 4.0), cupy.asarray([4, 0, 4]) + BEYOND)
    parameter = SimpleNamespace(notes=None, shape=shifted[0].shape, multipliers=NEUTRAL)
    variant = variant_of(tables[0], hyper, None, None)
    listed = rows.Rows(0, parameter, gradient, None, variant, shifted, hyper.numbers_of())
    kept = Kept(1)
    make(rows.launches([listed], hyper, kept), kept.used)
    np.testing.assert_allclose(tables[1].get(), 0.1 * np.array([2, 0, 0, 0, 4]) ** 2)
    np.testing.assert_array_equal(tables[0].get() < 0, [True, False, False, False, True])


def test_windows_are_updated_beyond_an_index_of_32_bits():
    hyper = hyper_of(RMSprop())
    tables = [cupy.zeros(5), cupy.zeros(5)]
    shifted = [beginning_before(table, BEYOND) for table in tables]
    gradient = Windows(cupy.arange(1.0, 5.0).reshape(2, 2), cupy.asarray([[3], [2]]) + BEYOND)
    parameter = SimpleNamespace(notes=None, shape=shifted[0].shape, multipliers=NEUTRAL)
    variant = variant_of(tables[0], hyper, None, None)
    make(sparse.launches(parameter, variant, shifted, gradient, (), hyper), Kept(1).used)
    np.testing.assert_allclose(tables[1].get(), 0.1 * np.array([0, 0, 3, 5, 2]) ** 2)
    np.testing.assert_array_equal(tables[0].get() < 0, [False, False, True, True, True])


def beginning_before(array, elements):
    """Return an array that ends where another does, and begins so many elements before it, in no one's memory."""
    size = array.size + elements
    address = array.data.ptr - elements * array.itemsize
    memory = cupy.cuda.UnownedMemory(address, size * array.itemsize, array, array.device.id)
    return cupy.ndarray(size, array.dtype, cupy.cuda.MemoryPointer(memory, 0))


@pytest.mark.parametrize("others", [0, 4], ids=["alone", "in a list"])
def test_an_array_of_more_than_2_to_the_31_elements_is_updated(others):
    free, _ = cupy.cuda.Device().mem_info
    if free < 20e9:
        pytest.skip("needs 20 GB of free memory on the device")
    variables = [cupy.zeros(size, cupy.float16) for size in [2**31 + 1000, *[3] * others]]
    RMSprop(0.1).apply_gradients([(cupy.ones_like(v), v) for v in variables])
    assert all((part == variables[0][0]).all() for part in cupy.array_split(variables[0], 64))
    assert float(variables[0][0]) == pytest.approx(-(0.1**0.5), rel=1e-3)
