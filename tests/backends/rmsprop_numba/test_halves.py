"""The conversions of float16 and bfloat16 that the Numba kernels do for themselves."""

import ml_dtypes
import numba
import numpy as np
import pytest

from rmsprop_numba.scalars import load, store

HALVES = {"float16": (np.float16, np.uint16), "bfloat16": (ml_dtypes.bfloat16, np.int16)}


@numba.njit
def loaded(stored, out):
    for i in range(stored.size):
        out[i] = load(stored[i])


@numba.njit
def put(numbers, out):
    for i in range(numbers.size):
        out[i] = store(numbers[i], out[i])


@pytest.mark.parametrize("name", HALVES)
def test_every_half_is_loaded_exactly(name):
    half, stored = HALVES[name]
    bits = np.arange(65536, dtype=np.uint16)
    result = np.empty(bits.size, np.float32)
    loaded(bits.view(stored), result)
    with np.errstate(invalid="ignore"):
        expected = bits.view(half).astype(np.float32)
    np.testing.assert_array_equal(result, expected)
    number = ~np.isnan(expected)
    assert np.array_equal(np.signbit(result[number]), np.signbit(expected[number]))


def near_and_between(half):
    """Return floats at, next to, and half way between all neighbouring halves, and random ones."""
    with np.errstate(invalid="ignore", over="ignore"):
        values = np.arange(65536, dtype=np.uint16).view(half).astype(np.float32)
        exact = np.unique(values[np.isfinite(values)])
        middle = exact[:-1] / 2 + exact[1:] / 2
        special = np.array([np.inf, -np.inf, np.nan, 65519.9, 65520, 3.4e38, 1e-45, -0.0], np.float32)
        near = [np.nextafter(x, s * np.float32(np.inf)) for x in (exact, middle) for s in (1, -1)]
        random = np.random.default_rng(0).integers(0, 2**32, 500_000, dtype=np.uint64).astype(np.uint32)
        return np.concatenate([exact, middle, special, *near, random.view(np.float32)])


@pytest.mark.parametrize("name", HALVES)
def test_floats_are_rounded_to_the_nearest_half_ties_to_even(name):
    half, stored = HALVES[name]
    numbers = near_and_between(half)
    result = np.empty(numbers.size, stored)
    put(numbers, result)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = numbers.astype(half)
    number = ~np.isnan(numbers)
    assert np.array_equal(result[number], expected.view(stored)[number])
    assert np.isnan(result.view(half)[~number].astype(np.float32)).all()
