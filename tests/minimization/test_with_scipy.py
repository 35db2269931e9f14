"""minimize as a method of SciPy, by the conventions of SciPy's own tests."""

import autograd.numpy as anp
import numpy as np
import pytest
from scipy import optimize
from scipy.optimize import Bounds, rosen, rosen_der

import rmsprop
from rmsprop import schedules


def rosenbrock(x):
    return rosen(x), rosen_der(x)


def method(fun, x0, **given):
    return optimize.minimize(fun, x0, method=rmsprop.minimize, **given)


@pytest.mark.parametrize(
    "bounds", [None, [(0, 2)] * 3, Bounds([0, 0, 0], [2, 2, 0.5])], ids=["none", "pairs", "Bounds"]
)
@pytest.mark.parametrize("jac", [True, rosen_der], ids=["true", "function"])
def test_scipy_runs_it_as_a_method(bounds, jac):
    given = {"learning_rate": 0.01, "steps": 50}
    fun = rosenbrock if jac is True else rosen
    ours = rmsprop.minimize(fun, np.zeros(3), jac=jac, bounds=bounds, **given)
    theirs = method(fun, [0, 0, 0], jac=jac, bounds=bounds, options=given)
    np.testing.assert_array_equal(ours.x, theirs.x)
    assert (ours.fun, ours.nit, ours.nfev, ours.status) == (theirs.fun, theirs.nit, theirs.nfev, theirs.status)


def test_rosenbrock_with_bounds_is_as_l_bfgs_b_finds_it():
    bounds = [(0, 0.8), (0, 2), (-1, 1)]
    options = {"learning_rate": schedules.CosineDecay(0.02, 6000), "steps": 6000}
    ours = method(rosenbrock, [0.1, 0.2, 0.3], jac=True, bounds=bounds, options=options)
    theirs = optimize.minimize(rosenbrock, [0.1, 0.2, 0.3], jac=True, bounds=bounds, method="L-BFGS-B", tol=1e-14)
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-6)
    assert abs(ours.fun - theirs.fun) < 1e-6


def test_args_and_both_callbacks_arrive():
    seen = []

    def loss(x, a, b):
        return float(np.sum((x - a * b) ** 2)), 2 * (x - a * b)

    def callback(intermediate_result):
        seen.append((intermediate_result.nit, intermediate_result.x))

    result = method(loss, np.zeros(2), args=(2.0, 3.0), jac=True, callback=callback, options={"steps": 3})
    assert [nit for nit, _ in seen] == [1, 2, 3]
    np.testing.assert_array_equal(seen[-1][1], result.x)
    method(loss, np.zeros(2), args=(2.0, 3.0), jac=True, callback=lambda xk: seen.append(xk), options={"steps": 3})
    np.testing.assert_array_equal(seen[-1], result.x)

    def stop(x):
        raise StopIteration

    result = method(loss, np.zeros(2), args=(2.0, 3.0), jac=True, callback=stop)
    assert (result.status, result.success, result.nit) == (99, False, 1)


def test_batches_at_an_unchanged_x_are_each_evaluated_through_scipys_memo():
    seen = []

    def loss(x, batch):
        seen.append(batch)
        return float(batch), np.zeros(2)

    result = method(loss, np.ones(2), jac=True, options={"batches": [1.0, 2.0, 3.0]})
    assert seen == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(result.history["fun"], seen)


def test_each_evaluation_is_one_call_also_where_x_is_nan():
    calls = []

    def loss(x):
        calls.append(1)
        return 0.0, np.full(2, np.nan)

    assert method(loss, np.ones(2), jac=True, options={"steps": 3}).nfev == len(calls) == 4


def test_tol_and_a_jac_by_differences_arrive():
    def smooth(x):
        return anp.sum((x - 1) ** 2)

    result = method(smooth, np.zeros(2), jac="2-point", tol=1e-3, options={"learning_rate": 0.1})
    assert result.status == 1
    np.testing.assert_allclose(result.x, 1, atol=0.1)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"hess": lambda x: np.eye(3)}, ValueError, "hess can't be used by RMSprop"),
        ({"hessp": lambda x, p: p}, ValueError, "hessp can't be used"),
        ({"constraints": {"type": "eq", "fun": np.sum}}, ValueError, "constraints can't be used .* projection"),
        ({"options": {"maxiter": 5}}, TypeError, "no argument 'maxiter'; expected 'steps'"),
        ({"options": {"disp": True}}, TypeError, "no argument 'disp'; expected 'progress'"),
        ({"options": {"nonsense": 1}}, TypeError, "no argument 'nonsense'"),
    ],
    ids=range(6),
)
def test_what_has_no_meaning_here_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        method(rosenbrock, np.zeros(3), jac=True, **given)


def test_nothing_is_refused_for_being_empty():
    result = rmsprop.minimize(rosenbrock, np.zeros(3), jac=True, hess=None, hessp=None, constraints=[], steps=1)
    assert result.success


def test_complex_x_of_scipy_is_minimised():
    def loss(z):
        return float(np.sum(np.abs(z - 1j) ** 2)), 2 * (z - 1j)

    result = method(loss, np.zeros(2, complex), jac=True, options={"learning_rate": 0.05, "steps": 100})
    np.testing.assert_allclose(result.x, 1j, atol=0.05)
