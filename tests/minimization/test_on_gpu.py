"""minimize on a GPU: nothing waits for a loss, and what is decided later is decided right."""

import os
import sys

import numpy as np
import pytest

from rmsprop import minimize

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def gpusim():
    return sys.modules.get("gpusim") or pytest.skip("only in the simulator")


def distance(x):
    wrong = x - 1
    return (wrong**2).sum(), 2 * wrong


def test_no_step_waits_for_a_loss(gpusim):
    if os.environ.get("GPUSIM_DEFER") == "1":
        pytest.skip("the simulated device does nothing until it is waited for, and so falls behind")
    counted = []

    def callback(intermediate_result):
        if intermediate_result.nit in (40, 80):
            counted.append(gpusim.counters()["synchronisations"])

    given = {"jac": True, "steps": 100, "check_every": 10, "tol": 0.0, "callback": callback}
    for more in ({}, {"keep_best": True, "bounds": (0, 3)}):
        minimize(distance, cupy.zeros(8), **given, **more)
        assert counted.pop() - counted.pop() == 0


def test_what_is_decided_on_losses_is_decided_within_three_checks():
    value = cupy.zeros(())

    def loss(x):
        return value.copy(), cupy.ones(2)

    result = minimize(loss, cupy.zeros(2), jac=True, steps=100, check_every=5, tol=0.1, patience=10)
    assert result.status == 1
    assert 10 <= result.nit <= 25

    def spoilt(x):
        return cupy.where(x.sum() < -0.05, cupy.nan, x.sum()), cupy.ones(2)

    result = minimize(spoilt, cupy.zeros(2), jac=True, steps=100, check_every=5, learning_rate=0.01)
    assert (result.status, result.success) == (-1, False)
    first = int(np.flatnonzero(np.isnan(result.history["fun"]))[0])
    assert f"The loss is nan after {first} steps" in result.message
    assert result.nit <= first + 15
    result = minimize(spoilt, cupy.zeros(2), jac=True, steps=5, check_every=99, learning_rate=0.1)
    assert result.status == -1


@pytest.mark.parametrize("has_batches", [False, True])
def test_the_best_point_is_copied_under_a_mask(has_batches):
    values = [5.0, 3.0, 1.0, 2.0, float("nan"), 4.0] if not has_batches else [5.0, 3.0, 1.0, 2.0, 3.0, 4.0]
    rest, seen = iter(cupy.asarray(values)), []

    def loss(x, *_):
        seen.append(x.get())
        return next(rest), cupy.ones(2)

    given = {"batches": [0, 1], "epochs": 3} if has_batches else {"steps": 5}
    result = minimize(loss, cupy.zeros(2), jac=True, keep_best=True, **given)
    np.testing.assert_array_equal(result.x.get(), seen[4 if has_batches else 2])
    assert result.fun == (1.5 if has_batches else 1.0)


def test_losses_of_host_and_device_and_all_histories_come_in_their_order():
    def loss(x):
        value = (x**2).sum()
        return value if int(value * 1e6) % 2 else float(value), 2 * x

    kept = []

    def callback(intermediate_result):
        kept.append(float(intermediate_result.fun))

    result = minimize(loss, cupy.ones(3), jac=True, steps=30, check_every=4, callback=callback)
    np.testing.assert_array_equal(result.history["fun"][1:], kept[:-1])
    assert result.fun == kept[-1] == float((result.x**2).sum())


def test_single_precision_structures_and_projections_stay_on_the_device():
    def loss(x):
        assert all(isinstance(array, cupy.ndarray) for array in x.values())
        return abs(x["z"] - 1j).sum() + x["w"].sum(), {"z": x["z"] - 1j, "w": cupy.ones(2, cupy.float32)}

    x0 = {"z": cupy.ones(3, cupy.complex64), "w": cupy.ones(2, cupy.float32)}
    result = minimize(
        loss, x0, jac=True, steps=20, learning_rate={"z": 0.1, "w": 0.01}, bounds={"z": None, "w": (0.9, None)},
        projection=lambda x: {"z": x["z"] / abs(x["z"]), "w": x["w"]},
    )  # fmt: skip
    np.testing.assert_allclose(abs(result.x["z"]).get(), 1, rtol=1e-6)
    np.testing.assert_array_equal(result.x["w"].get(), np.float32(0.9))
    assert (x0["z"] == 1).all()
