"""Right gradients are found right: smooth functions always, and no noise or kink makes them look wrong."""

from collections import Counter

import numpy as np
import pytest

from rmsprop import check_gradients

WAYS = {  # smooth functions of one number, with their slopes
    "sin": (np.sin, np.cos),
    "exp": (np.exp, np.exp),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "square": (lambda u: u * u, lambda u: 2 * u),
    "cube": (lambda u: u * u * u, lambda u: 3 * u * u),
    "root": (lambda u: np.sqrt(1 + u * u), lambda u: u / np.sqrt(1 + u * u)),
    "log": (lambda u: np.log1p(u * u), lambda u: 2 * u / (1 + u * u)),
    "bell": (lambda u: np.exp(-u * u), lambda u: -2 * u * np.exp(-u * u)),
    "line": (lambda u: u, np.ones_like),
}
DTYPES = ["float64", "complex128", "float32", "complex64"]


def numbers(rng, shape, dtype):
    x = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0)
    return x.astype(dtype)


def smooth(rng, dtype, size=None):
    """Return a sum of smooth functions of random mixtures of elements with its gradient, and where to check it."""
    size = int(rng.integers(1, 40)) if size is None else size
    scale = np.dtype(dtype).type(10.0 ** rng.uniform(-3, 3))
    x, a = (
        scale * numbers(rng, size, dtype),
        numbers(rng, (4, size), dtype) / scale / np.dtype(dtype).type(size**0.5),
    )
    b, c = numbers(rng, (2, 4), a.real.dtype)
    ways = [WAYS[name] for name in rng.choice(sorted(WAYS), 4)]

    def loss(x):
        u = (a.conj() @ x).real + b
        value = sum(weight * way(each) for weight, (way, _), each in zip(c, ways, u, strict=True))
        return value, a.T @ np.array(
            [weight * slope(each) for weight, (_, slope), each in zip(c, ways, u, strict=True)]
        )

    return loss, x


def test_thousand_smooth_functions_are_right():
    rng = np.random.default_rng(0)
    found = Counter(check_gradients(*smooth(rng, DTYPES[k % 2]), seed=k).verdicts for k in range(1000))
    assert found == {"right": 1000}


# Noise: what may happen to the value of a loss.


def random(rng, size):
    return lambda value: value + type(value)(size * abs(value) * rng.standard_normal())


def rounded(rng, size):
    return lambda value: type(value)(np.round(value / size) * size)


def narrowed(rng, size):
    """Return the value as if the loss was computed in single precision, if `size` is small, or in half."""
    return lambda value: float(np.float32(value) if size < 1e-4 else np.float16(np.clip(value, -6e4, 6e4)))


def rippled(rng, size):
    return lambda value: value + type(value)(size * np.sin(1e12 * value))


NOISES = [random, rounded, narrowed, rippled]

# Kinks: functions with kinks here and there, or where they are evaluated, and a slope of one side.

KINKS = {
    "abs": (np.abs, np.sign),
    "relu": (lambda u: np.maximum(u, 0), lambda u: (u > 0) * 1.0),
    "relu, from the other side": (lambda u: np.maximum(u, 0), lambda u: (u >= 0) * 1.0),
    "clip": (lambda u: np.clip(u, -1, 1), lambda u: (np.abs(u) <= 1) * 1.0),
    "hinge": (lambda u: np.maximum(1 - u, 0) ** 2, lambda u: -2 * np.maximum(1 - u, 0)),
    "triangle": (lambda u: np.abs(u - np.round(u)), lambda u: np.sign(u - np.round(u))),
}


def kinked(rng, dtype, name):
    """Return a mixture of kinks with its gradient, and a place, of which half of the elements may be 0."""
    size, (way, slope) = int(rng.integers(1, 40)), KINKS[name]
    x, a = numbers(rng, size, dtype), numbers(rng, (size, size), dtype)
    if rng.integers(2):
        a = np.eye(size, dtype=dtype)
        x[rng.integers(0, size, size // 2)] = 0
    c = numbers(rng, size, a.real.dtype)

    def loss(x):
        u = (a.conj() @ x).real
        return np.sum(c * way(u)), a.T @ (c * slope(u))

    return loss, x


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
def test_noise_makes_no_right_gradient_wrong(noise):
    rng, found = np.random.default_rng(1), Counter()
    for k in range(120):
        loss, x = smooth(rng, DTYPES[k % 4])
        spoil = noise(rng, 10.0 ** rng.uniform(-12, -2))
        found[check_gradients(lambda x: (spoil(loss(x)[0]), loss(x)[1]), x, seed=k).verdicts] += 1  # noqa: B023
    assert {*found} <= {"right", "unclear"}
    assert found["right"] > 10


@pytest.mark.parametrize("name", KINKS)
def test_kinks_make_no_right_gradient_wrong(name):
    rng, found = np.random.default_rng(2), Counter()
    for k in range(120):
        found[check_gradients(*kinked(rng, DTYPES[k % 4], name), seed=k).verdicts] += 1
    assert {*found} <= {"right", "unclear"}
    assert found["right"] > 10
