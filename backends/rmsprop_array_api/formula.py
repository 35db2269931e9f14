"""The formula of RMSprop on whole arrays; real and complex."""

import math
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays import is_on_host
from rmsprop.backends import Hyperparameters

Array = Any


class State(NamedTuple):
    """A variable and its slots, or rows of them; None for slots that are not used."""

    variable: Array
    rms: Array
    momentum: Array | None
    mg: Array | None


def stepped(xp: Any, state: State, gradient: Array, hyper: Hyperparameters) -> State:
    """Return the state after a step, by a gradient that has been clipped, in the dtype of the computation."""
    new = 1.0 - hyper.rho
    inner, outer = hyper.epsilons
    rms = variance = hyper.rho * state.rms + new * square(xp, gradient)
    mg = None
    if state.mg is not None:
        mg = hyper.rho * state.mg + new * gradient
        variance = rms - square(xp, mg)
        variance = xp.maximum(variance, xp.zeros_like(variance))  # it may be negative by rounding
        variance = xp.where(xp.isinf(rms), rms, variance)  # and so may be the square of the mean
    step = hyper.learning_rate * gradient / (xp.sqrt(variance + inner) + outer)
    momentum = None
    if state.momentum is not None:
        step = momentum = hyper.momentum * state.momentum + step
    return State(state.variable - step, rms, momentum, mg)


def square(xp: Any, x: Array) -> Array:
    """Return ``|x|**2``."""
    if not xp.isdtype(x.dtype, "complex floating"):
        return x * x
    real, imag = xp.real(x), xp.imag(x)
    return real * real + imag * imag


def clipped(xp: Any, x: Array, limit: float | None) -> Array:
    """Return `x` with its absolute values, or moduli, brought to the limit; NaN stays NaN."""
    if limit is not None and x.dtype in (xp.float32, xp.complex64):
        limit = float(np.float32(limit))  # which may become 0 or infinite
    if limit is None or math.isinf(limit):
        return x
    if xp.isdtype(x.dtype, "complex floating"):
        return _shortened(xp, x, limit)
    bound = xp.full_like(x, limit)
    return xp.where(x > bound, bound, xp.where(x < -bound, -bound, x))


def _shortened(xp: Any, x: Array, limit: float) -> Array:
    """Return complex numbers with their moduli, which may be beyond their dtype, brought to the limit."""
    if limit == 0 or 0 in x.shape:
        return x * 0.0
    modulus = xp.abs(x)
    factor = xp.where(modulus <= limit, xp.ones_like(modulus), limit / modulus)  # JAX takes tiny limits for 0
    tiny = float(xp.finfo(modulus.dtype).smallest_normal)
    if is_on_host(x) and bool(xp.min(factor) >= tiny):
        return x * factor
    quarter = x * 0.25
    small = quarter / xp.abs(quarter) * limit
    return xp.where(factor < tiny, small, x * factor)


def parts(xp: Any, x: Array | None) -> tuple[Array, Array]:
    """Return the real and the imaginary part."""
    return (None, None) if x is None else (xp.real(x), xp.imag(x))


def joined(xp: Any, real: Array | None, imag: Array | None, dtype: Any) -> Array:
    """Return the complex array with these parts."""
    if real is None or imag is None:
        return None
    return xp.astype(real, dtype) + 1j * xp.astype(imag, dtype)
