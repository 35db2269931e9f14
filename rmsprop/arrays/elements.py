"""Gradients before they come to the formula: clipped by value, and complex ones taken apart."""

import math

import numpy as np

from rmsprop.arrays.libraries import Array, DType, Namespace, is_on_host


def clipped(xp: Namespace, x: Array, limit: float | None) -> Array:
    """Return `x` with its absolute values, or moduli, brought to the limit; NaN stays NaN."""
    if limit is not None and x.dtype in (xp.float32, xp.complex64):
        limit = float(np.float32(limit))  # which may become 0 or infinite
    if limit is None or math.isinf(limit):
        return x
    if xp.isdtype(x.dtype, "complex floating"):
        return _shortened(xp, x, limit)
    bound = xp.full_like(x, limit)
    return xp.where(x > bound, bound, xp.where(x < -bound, -bound, x))


def _shortened(xp: Namespace, x: Array, limit: float) -> Array:
    """Return complex numbers with their moduli, which may be beyond their dtype, brought to the limit."""
    if limit == 0 or 0 in x.shape:
        return x * 0.0
    modulus = xp.abs(x)
    # Of a number by an array, PyTorch takes the inverses of the array first, which may be infinite.
    ratio = xp.full_like(modulus, limit) / modulus
    factor = xp.where(ratio < 1, ratio, xp.ones_like(ratio))  # it is NaN if JAX takes both for 0
    tiny = float(xp.finfo(modulus.dtype).smallest_normal)
    if is_on_host(x) and bool(xp.min(factor) >= tiny):
        return x * factor
    quarter = x * 0.25
    direction = xp.where(xp.isfinite(modulus), x / modulus, quarter / xp.abs(quarter))
    return xp.where(factor < tiny, direction * limit, x * factor)


def parts(xp: Namespace, x: Array | None) -> tuple[Array, Array]:
    """Return the real and the imaginary part."""
    return (None, None) if x is None else (xp.real(x), xp.imag(x))


def joined(xp: Namespace, real: Array | None, imag: Array | None, dtype: DType) -> Array:
    """Return the complex array with these parts."""
    if real is None or imag is None:
        return None
    return xp.astype(real, dtype) + 1j * xp.astype(imag, dtype)
