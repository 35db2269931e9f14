"""Stops of minimize: each status, and what is left behind."""

import math
import time

import numpy as np
import pytest

from rmsprop import minimize


def distance(x, *others):
    wrong = x - sum(others)
    return float(np.sum(np.abs(wrong) ** 2)), 2 * wrong


def losses_in_turn(values):
    """Return a loss that has these values, whatever its variable is, and a gradient of 1."""
    rest = iter(values)
    return lambda x: (next(rest), np.ones_like(x))


@pytest.mark.parametrize("has_batches", [False, True])
def test_tol_stops_when_the_loss_has_not_fallen_so_often(has_batches):
    values = [9.0, 5.0, 4.99, 4.98, 1.0, 0.999, 1.5, 0.9995]
    if has_batches:  # two in each epoch, of which the mean counts
        doubled = losses_in_turn([v + d for v in values for d in (-0.25, 0.25)])
        result = minimize(
            lambda x, _: doubled(x), np.zeros(1), jac=True, batches=[0, 0], epochs=99, tol=0.01, patience=3
        )
        assert (result.nit, result.nfev) == (16, 16)
    else:
        result = minimize(losses_in_turn(values), np.zeros(1), jac=True, tol=0.01, patience=3)
        assert (result.nit, result.nfev) == (7, 8)
    assert (result.status, result.success, result.fun) == (1, True, 0.9995)
    assert "tol 0.01 3 times" in result.message


def test_tol_is_relative_to_losses_above_1():
    values = [1000.0, 995.0, 991.0, 990.0, 989.0]
    assert minimize(losses_in_turn(values), np.zeros(1), jac=True, tol=0.01, patience=2).nit == 2


def test_max_seconds_stop():
    def slow(x):
        time.sleep(0.01)
        return distance(x)

    result = minimize(slow, np.ones(2), jac=True, max_seconds=0.05)
    assert (result.status, result.success) == (2, True)
    assert 0 < result.nit < 20
    assert result.nfev == result.nit + 1
    assert result.fun == distance(result.x)[0]
    result = minimize(lambda x, _: slow(x), np.ones(2), jac=True, batches=range(9), epochs=99, max_seconds=0.05)
    assert (result.status, result.nfev) == (2, result.nit)


@pytest.mark.parametrize("has_batches", [False, True])
def test_a_callback_stops_by_stopiteration(has_batches):
    def callback(intermediate_result):
        if intermediate_result.nit == 4:
            raise StopIteration

    batches = {"batches": [0.0] * 9} if has_batches else {}
    result = minimize(distance, np.ones(2), jac=True, callback=callback, **batches)
    assert (result.status, result.success, result.nit) == (99, False, 4)
    assert result.nfev == 4 + (not has_batches)
    assert has_batches or result.fun == distance(result.x)[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("has_batches", [False, True])
def test_a_loss_that_is_not_finite_stops_before_its_gradient_is_used(bad, has_batches):
    evaluations = []

    def loss(x, *_):
        evaluations.append(x.copy())
        return (bad, np.full(2, bad)) if len(evaluations) == 4 else distance(x)

    batches = {"batches": [0.0] * 9} if has_batches else {}
    result = minimize(loss, np.ones(2), jac=True, **batches)
    assert (result.status, result.success, result.nit, result.nfev) == (-1, False, 3, 4)
    np.testing.assert_array_equal(result.x, evaluations[-1])
    assert f"The loss is {bad} after 3 steps." in result.message
    assert len(result.history["fun"]) == 3


@pytest.mark.parametrize("where", ["fun", "callback", "projection"])
def test_ctrl_c_returns_what_is_there(where):
    calls = {"fun": 0, "callback": 0, "projection": 0}

    def press(name):
        calls[name] += 1
        if name == where and calls[name] == 4:
            raise KeyboardInterrupt

    def loss(x):
        press("fun")
        return distance(x)

    def projection(x):
        press("projection")
        return x

    result = minimize(loss, np.ones(2), jac=True, callback=lambda x: press("callback"), projection=projection)
    assert (result.status, result.success) == (-2, False)
    assert result.nit in (3, 4)
    assert len(result.history["fun"]) == result.nit
    assert np.isfinite(result.fun)
    assert (result.x < 1).all()


def test_errors_of_the_callers_functions_are_passed_on():
    def fail(*_):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize(fail, np.ones(2), jac=True)
    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize(distance, np.ones(2), jac=True, callback=fail)
    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize(distance, np.ones(2), jac=True, projection=fail)


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_best_point_is_kept_if_that_is_wanted(overwrite):
    values, seen = [5.0, 3.0, 1.0, 2.0, 1.5, 4.0], []
    rest = iter(values)

    def loss(x):
        seen.append(x.copy())
        return next(rest), np.ones(2)

    x0 = np.ones(2)
    result = minimize(loss, x0, jac=True, steps=5, keep_best=True, overwrite_x0=overwrite)
    np.testing.assert_array_equal(result.x, seen[2])
    assert result.fun == 1.0
    assert (result.x is x0) == overwrite
    result = minimize(losses_in_turn([2.0, math.nan]), x0, jac=True, keep_best=True)
    assert (result.fun, result.status) == (2.0, -1)


def test_with_batches_the_best_epoch_is_kept():
    values, ends = iter([3.0, 5.0, 1.0, 2.0, 0.0, 4.0]), []

    def loss(x, batch):
        return next(values), np.ones(2)

    def callback(x):
        ends.append(x)

    result = minimize(loss, np.ones(2), jac=True, batches=[0, 1], epochs=3, keep_best=True, callback=callback)
    assert result.fun == 1.5
    np.testing.assert_array_equal(result.x, ends[3])


def test_callbacks_are_called_as_scipy_calls_them():
    seen = []
    minimize(distance, np.ones(2), jac=True, steps=2, callback=lambda xk: seen.append(xk))
    minimize(
        distance,
        np.ones(2),
        jac=True,
        steps=2,
        callback=lambda intermediate_result: seen.append(intermediate_result.x),
    )
    for a, b in zip(seen[:2], seen[2:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert (seen[0] != seen[1]).all()


def test_an_intermediate_result_has_its_x_only_as_long_as_that_is_right():
    kept = []

    def callback(intermediate_result):
        if intermediate_result.nit > 1:
            kept.append(intermediate_result)
            return
        assert "x" in intermediate_result
        assert intermediate_result.get("x").shape == (2,)
        assert "x:" in repr(intermediate_result)
        assert intermediate_result.get("jac", "none") == "none"
        with pytest.raises(AttributeError):
            _ = intermediate_result.jac
        kept.append(intermediate_result)

    minimize(distance, np.ones(2), jac=True, steps=2, callback=callback)
    assert kept[0].x.shape == (2,)
    with pytest.raises(RuntimeError, match="x was not read during the callback"):
        _ = kept[1].x
    assert kept[1].fun > 0
