"""Variables on several devices in one step."""

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop
from rmsprop_numba.kernels import BLOCK

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        cupy.cuda.is_available() and cupy.cuda.runtime.getDeviceCount() < 2, reason="only one CUDA device"
    ),
]

SETTINGS = [{}, {"momentum": 0.9, "centered": True}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}]


def spread(hosts):
    """Return arrays that are on two devices by turns."""
    arrays = []
    for i, host in enumerate(hosts):
        with cupy.cuda.Device(i % 2):
            arrays.append(cupy.asarray(host))
    return arrays


@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_list_on_two_devices_is_updated_like_one_on_the_host(settings, count, current):
    rng = np.random.default_rng(0)
    hosts = [rng.standard_normal(int(n)).astype(np.float32) for n in rng.integers(1, 2 * BLOCK, count + 1)[1:]]
    variables, gradients = spread(hosts), spread(hosts)
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    with cupy.cuda.Device(current):
        for _ in range(3):
            one.apply_gradients(zip(gradients, variables, strict=True))
            two.apply_gradients([(g.get(), h) for g, h in zip(gradients, hosts, strict=True)])
        weights = one.get_weights()
    for variable, host in zip(variables, hosts, strict=True):
        np.testing.assert_allclose(variable.get(), host, rtol=1e-5, atol=1e-6)
    for slot, expected in zip(weights, two.get_weights(), strict=True):
        np.testing.assert_allclose(slot, expected, rtol=1e-5, atol=1e-6)
    assert [v.device.id for v in variables] == [w.array.device.id for w in one.weights[1 : count + 1]]


def test_sparse_gradients_stay_on_their_device():
    with cupy.cuda.Device(1):
        table = cupy.ones((4, 3))
        gradient = IndexedSlices(cupy.ones((2, 3)), cupy.asarray([2, 2]))
    opt = RMSprop(0.1, clipnorm=1.0)
    opt.apply_gradients([(gradient, table)])
    assert (table.get() < 1).any(1).tolist() == [False, False, True, False]


def test_a_captured_step_needs_one_device():
    variables = spread([np.ones(3), np.ones(3)])
    opt = RMSprop()
    opt.build(variables)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="one device"):
            opt.apply_gradients([(v, v) for v in variables])
        stream.end_capture()
