"""CuPy arrays, on a device or in a simulator of one."""

import sys

import numpy as np
import pytest

from rmsprop import RMSprop, clipping
from rmsprop.testing import BackendTests, hyper_of

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
rmsprop_cupy = pytest.importorskip("rmsprop_cupy")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def errors_stay_in_their_test():
    yield
    cupy.cuda.Device().synchronize()


class TestCuPy(BackendTests):
    dtypes = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")

    @pytest.fixture
    def asarray(self):
        return cupy.asarray


@pytest.fixture
def gpusim():
    """Return the simulator, which counts what a device does."""
    return sys.modules.get("gpusim") or pytest.skip("only a simulator counts launches")


def many(count, dtype=np.float32, seed=0):
    """Return arrays of mixed shapes, on the host."""
    rng = np.random.default_rng(seed)
    shapes = [(int(n),) if n % 3 else (int(n) // 3, 3) for n in rng.integers(0, 3000, count)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True, "global_clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.float16])
def test_a_list_is_updated_as_on_the_host(settings, dtype):
    starts = many(30, dtype)
    host, device = [s.copy() for s in starts], [cupy.asarray(s) for s in starts]
    one, two = RMSprop(0.01, **settings), RMSprop(0.01, **settings)
    for seed in (1, 2, 3):
        gradients = many(30, dtype, seed=0)
        gradients = [g * np.asarray(seed, dtype) for g in gradients]
        one.apply_gradients(zip(gradients, host, strict=True))
        two.apply_gradients(zip(map(cupy.asarray, gradients), device, strict=True))
    tolerance = 1e-3 if dtype == np.float16 else 1e-5
    for a, b in zip(host, device, strict=True):
        np.testing.assert_allclose(a, b.get(), rtol=tolerance, atol=tolerance)


def test_a_list_in_another_order_or_with_gaps_is_updated_rightly():
    starts = many(10)
    device = [cupy.asarray(s) for s in starts]
    host = [s.copy() for s in starts]
    one, two = RMSprop(0.01, momentum=0.5, clipnorm=1.0), RMSprop(0.01, momentum=0.5, clipnorm=1.0)
    for order in (range(10), range(9, -1, -1), range(1, 10, 2), range(10)):
        one.apply_gradients([(starts[i], host[i]) for i in order])
        two.apply_gradients([(cupy.asarray(starts[i]), device[i]) for i in order])
    for a, b in zip(host, device, strict=True):
        np.testing.assert_allclose(a, b.get(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True}], ids=str)
def test_a_steady_step_of_300_arrays_is_one_launch_and_waits_for_nothing(gpusim, settings):
    variables = [cupy.asarray(a) for a in many(300)]
    opt = RMSprop(**settings)
    for _ in range(2):
        opt.apply_gradients([(v.copy(), v) for v in variables])
    gradients = [cupy.ones_like(v) for v in variables]
    gpusim.reset_counters()
    opt.apply_gradients(zip(gradients, variables, strict=True))
    counted = gpusim.counters()
    assert counted["kernel_launches"] == 1
    assert counted["synchronisations"] == counted["mallocs"] == 0
    assert counted["memcpy_async_h2d"] <= 1
    gpusim.reset_counters()
    opt.apply_gradients(zip(gradients, variables, strict=True))
    assert gpusim.counters()["memcpy_async_h2d"] == 0


@pytest.mark.parametrize("dtypes", [[np.float32], [np.float32, np.complex64]], ids=str)
def test_a_steady_step_with_clipping_is_at_most_3_launches_for_each_dtype(gpusim, dtypes):
    variables = [cupy.asarray(a) for dtype in dtypes for a in many(300 // len(dtypes), dtype)]
    opt = RMSprop(global_clipnorm=1.0)
    for _ in range(2):
        gradients = [cupy.ones_like(v) for v in variables]
        opt.apply_gradients(zip(gradients, variables, strict=True))
    gpusim.reset_counters()
    opt.apply_gradients(zip(gradients, variables, strict=True))
    counted = gpusim.counters()
    assert counted["kernel_launches"] <= 3 * len(dtypes)
    assert counted["synchronisations"] == counted["mallocs"] == counted["memcpy_async_h2d"] == 0


@pytest.mark.parametrize("settings", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipnorm": 0.0}], ids=str)
@pytest.mark.parametrize("value", [1.0, np.inf, np.nan, 0.0])
def test_clipping_factors_are_those_of_the_shared_rules(settings, value):
    host = [np.full(3, value), np.ones(5000, np.float32), np.ones((), np.float16), np.ones(0)]
    squares = np.array([float((g.astype(float) ** 2).sum()) for g in host])
    hyper = hyper_of(RMSprop(**settings))
    (expected,) = clipping.factors([squares], hyper.clipnorm, hyper.global_clipnorm)
    gradients = [cupy.asarray(g) for g in host]
    np.testing.assert_allclose(rmsprop_cupy.factors(gradients, hyper).get(), expected, rtol=1e-12)
    np.testing.assert_allclose(rmsprop_cupy.squared_norms(gradients, hyper).get(), squares, rtol=1e-12)
