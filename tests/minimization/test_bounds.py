"""Bounds in the forms of SciPy, and projections."""

import array_api_strict
import numpy as np
import pytest
from scipy.optimize import Bounds

from rmsprop import RMSprop, Variable, minimize


def distance(x, *others):
    wrong = x - sum(others)
    return float(np.sum(np.abs(wrong) ** 2)), 2 * wrong


@pytest.mark.parametrize(
    "bounds",
    [
        [(0, 0.2), (-1, None), (None, None), (0.1, 0.1)],
        Bounds([0, -1, -np.inf, 0.1], [0.2, np.inf, np.inf, 0.1]),
        np.array([(0, 0.2), (-1, np.inf), (-np.inf, np.inf), (0.1, 0.1)]),
        ((0, 0.2), (-1.0, np.inf), (-np.inf, None), [0.1, 0.1]),
    ],
    ids=["pairs", "Bounds", "array", "mixed"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_each_element_may_have_bounds(bounds, dtype, shape):
    x0 = np.array([1, -3, 5, 0], dtype).reshape(shape)
    if isinstance(bounds, Bounds):
        bounds = Bounds(np.reshape(bounds.lb, shape), np.reshape(bounds.ub, shape))
    x, opt = x0.copy(), RMSprop(0.1)
    low, high = np.array([0, -1, -np.inf, 0.1], dtype), np.array([0.2, np.inf, np.inf, 0.1], dtype)
    low, high = low.reshape(shape), high.reshape(shape)
    np.clip(x, low, high, out=x)
    for _ in range(30):
        opt.apply_gradients([(2 * x, x)])
        np.clip(x, low, high, out=x)
    result = minimize(distance, x0, jac=True, bounds=bounds, learning_rate=0.1, steps=30)
    np.testing.assert_array_equal(result.x, x)
    assert result.x.dtype == dtype
    first = minimize(distance, x0, jac=True, bounds=bounds, learning_rate=0.1, steps=1).history["fun"][0]
    assert first == distance(np.clip(x0, low, high))[0]


@pytest.mark.parametrize("bounds", [(0.5, 2), [0.5, None], Bounds(0.5, 2), Bounds(0.5)], ids=str)
def test_one_pair_may_be_that_of_all_elements(xp, bounds):
    def loss(x):
        return (x**2).sum(), 2 * x

    result = minimize(loss, xp.ones((2, 3)), jac=True, bounds=bounds, learning_rate=0.1, steps=30)
    assert (result.x == 0.5).all()


def test_an_array_of_two_elements_tells_a_pair_from_two_pairs():
    result = minimize(distance, np.ones(2), jac=True, bounds=[(0.5, 2), (0.7, 2)], learning_rate=0.1, steps=30)
    np.testing.assert_array_equal(result.x, [0.5, 0.7])


def test_in_a_structure_each_array_may_have_bounds_or_none():
    def loss(x):
        return 0.0, {"a": np.ones(2), "b": [np.ones(1), 1j * np.ones(2)]}

    x0 = {"a": np.zeros(2), "b": [Variable([0.0]), np.zeros(2, complex)]}
    bounds = {"a": [(-0.1, 1), (-0.2, 1)], "b": [(-0.3, None), None]}
    result = minimize(loss, x0, jac=True, bounds=bounds, learning_rate=0.1, steps=20)
    np.testing.assert_array_equal(result.x["a"], [-0.1, -0.2])
    np.testing.assert_array_equal(result.x["b"][0].numpy(), np.float32([-0.3]))
    assert (result.x["b"][1].imag < -1).all()


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        ((1, 0), ValueError, "bounds of '0': a lower one is greater"),
        ([(0, 1)], ValueError, r"a list of 2 pairs, one for each, or a scipy.optimize.Bounds; given \[\(0, 1\)\]"),
        ((0, np.nan), ValueError, "must be numbers"),
        ([(0, 1), (0, "x")], ValueError, "must be a pair"),
        (3, ValueError, "must be a pair"),
        ("ab", ValueError, "must be a pair"),
        ({"a": (0, 1)}, ValueError, "bounds must have the structure of x0, array; given"),
        (Bounds([0, 0, 0], [1, 1, 1]), ValueError, r"must fit its shape \(2,\)"),
    ],
    ids=range(8),
)
def test_bad_bounds_are_refused(bounds, error, words):
    with pytest.raises(error, match=words):
        minimize(distance, np.ones(2), jac=True, bounds=bounds)


def test_complex_arrays_have_no_bounds_but_projections():
    with pytest.raises(TypeError, match=r"bounds of 'z', which is complex, .* projection"):
        minimize(distance, {"z": np.ones(2, complex)}, jac=True, bounds={"z": (0, 1)})


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
def test_what_a_projection_returns_is_copied_into_x(xp, dtype):
    def unit(x):
        return x / abs(x)

    def loss(x):
        return abs(x - 2j if "complex" in dtype else x + 2).sum(), xp.ones(3, dtype)

    x0 = xp.ones(3, dtype)
    x, opt = x0.copy(), RMSprop(0.1)
    for _ in range(10):
        opt.apply_gradients([(xp.ones(3, dtype), x)])
        x[...] = unit(x)
    for projection in (unit, lambda x: xp.divide(x, abs(x), out=x)):
        result = minimize(loss, x0, jac=True, projection=projection, learning_rate=0.1, steps=10)
        assert (result.x == x).all()
    assert (x0 == 1).all()


def test_projections_of_structures_and_of_arrays_that_never_change():
    strict = array_api_strict.asarray(np.ones(2))

    def projection(x):
        return {"s": x["s"] * 0 + 3, "n": np.full(2, 4.0)}

    def loss(x):
        return 0.0, {"s": x["s"], "n": x["n"]}

    result = minimize(loss, {"n": np.ones(2), "s": strict}, jac=True, projection=projection, steps=2)
    np.testing.assert_array_equal(np.asarray(result.x["s"]), 3)
    np.testing.assert_array_equal(result.x["n"], 4)


def test_bounds_come_after_the_projection():
    result = minimize(distance, np.ones(2), jac=True, projection=lambda x: x + 9, bounds=(None, 2), steps=2)
    np.testing.assert_array_equal(result.x, 2)


@pytest.mark.parametrize(
    ("projection", "error", "words"),
    [
        (lambda x: None, TypeError, "projection returned None; it must return x"),
        (lambda x: x[:1], ValueError, r"what projection returns of '0' has shape \(1,\); expected \(2,\)"),
        (lambda x: x + 1j, TypeError, "has dtype complex128, which can't be cast to float64"),
        (lambda x: x.tolist(), TypeError, "must be an array of the same library; given list"),
        (lambda x: {"x": x}, ValueError, "must have the structure of x0"),
        (3, TypeError, "projection must be a function of x or None; given 3"),
    ],
    ids=range(6),
)
def test_bad_projections_are_refused(projection, error, words):
    with pytest.raises(error, match=words):
        minimize(distance, np.ones(2), jac=True, projection=projection)
