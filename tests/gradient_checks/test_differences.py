"""Slopes by differences: exact where they can be, with errors that hold where they can't."""

import math

import numpy as np
import pytest

from rmsprop.gradient_checks.differences import RATIO, first_step, ridders, slope

EPSILON = 2.0**-52


def wave(rng):
    """Return a smooth function of one number, and its slope at 0."""
    a, b, c, d = rng.standard_normal(4)
    return (lambda h: a * math.sin(1 + b * h) + c * math.exp(d * h)), a * b * math.cos(1) + c * d


def measured(function, precision=EPSILON):
    return slope(function, function(0.0), first_step(3.0, precision), precision)


def test_the_table_is_free_of_the_powers_of_the_step():
    steps = [1 / RATIO**k for k in range(5)]
    table = ridders([3 + 2 * h**2 - 5 * h**4 + h**6 for h in steps])
    assert table[3][3] == pytest.approx(3, abs=1e-12)
    assert table[4][2] != pytest.approx(3, abs=1e-12)


def test_slopes_of_smooth_functions_are_known_to_ten_digits():
    rng = np.random.default_rng(0)
    for _ in range(200):
        function, true = wave(rng)
        found = measured(function)
        assert abs(found.value - true) <= 2 * found.error < 1e-9 * (1 + abs(function(0.0)))


@pytest.mark.parametrize("quantum", [1e-10, 1e-8, 1e-6])
def test_no_value_that_was_rounded_looks_exact_by_chance(quantum):
    rng = np.random.default_rng(1)
    for _ in range(300):
        function, true = wave(rng)
        found = measured(lambda h: round(function(h) / quantum) * quantum)  # noqa: B023
        assert abs(found.value - true) <= 8 * found.error


@pytest.mark.parametrize("size", [1e-10, 1e-8, 1e-6, 1e-4])
def test_errors_hold_for_noise(size):
    rng = np.random.default_rng(2)
    for _ in range(300):
        function, true = wave(rng)
        found = measured(lambda h: function(h) + size * rng.standard_normal())  # noqa: B023
        assert abs(found.value - true) <= 8 * found.error


@pytest.mark.parametrize("distance", [0.0, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("precision", [EPSILON, 2.0**-23])
def test_errors_hold_at_a_kink_and_beside_it(distance, precision):
    rng = np.random.default_rng(3)
    for _ in range(100):
        function, true = wave(rng)
        jump = rng.standard_normal()
        found = measured(lambda h: function(h) + jump * abs(h + distance), precision)  # noqa: B023
        assert abs(found.value - true - jump) <= 8 * found.error


def test_a_function_that_is_constant_has_no_slope_and_one_that_is_coarse_has_an_error():
    assert measured(lambda h: 5.0).value == 0
    coarse = measured(lambda h: float(round(h)))
    assert abs(coarse.value - 1) <= 8 * coarse.error
