"""Arithmetic on one element, compiled for each kind of number: real, complex, half."""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

FLOAT16 = types.uint16  # Numba has no halves: float16 arrays are passed as uint16, bfloat16 as int16
BFLOAT16 = types.int16

EXPONENT, LAST_OF_EXPONENT = np.uint64(0x7FF << 52), np.uint64(1 << 52)
"""Bits of a double; sums of integers without a sign may overflow."""

# The names below have no bodies: `overload` supplies them when a kernel is compiled.


def load(x: Any) -> Any:
    """Return a stored element as a number to compute with."""


def store(x: Any, like: Any) -> Any:
    """Return a number in the form of the stored element `like`."""


def square(x: Any) -> Any:
    """Return ``|x|**2``, a real number."""


def times(x: Any, factor: Any) -> Any:
    """Return `x` times a real number."""


def over(x: Any, divisor: Any) -> Any:
    """Return `x` divided by a real number."""


def multiplied(x: Any, factor: Any) -> Any:
    """Return `x` times a real number; `x` if that is None."""


def plus(x: Any, factor: Any, y: Any) -> Any:
    """Return `x` plus the product of a real number and a stored element `y`; `x` if the factor is None."""


def ahead(step: Any, factor: Any, momentum: Any) -> Any:
    """Return a step plus the product of a real number and the momentum; only the momentum if that is None."""


def scaled(x: Any, factor: Any) -> Any:
    """Return `x` times the two numbers of a factor, one after the other, in the precision of `x`."""


def clip(x: Any, limit: Any) -> Any:
    """Return `x` with its absolute value, or modulus, brought to the limit; NaN stays NaN."""


def carry(x: Any) -> Any:
    """Return an integer that is negative if and only if a stored element is NaN or infinite.

    One is added to the bits of the exponent, which in these are all set, so that it carries into the sign:
    integers of many elements can be joined by ``|``, in vector registers.
    """


@overload(load, inline="always")
def _load(x):
    if x == FLOAT16:
        return lambda x: half_to_float(x)
    if x == BFLOAT16:
        return lambda x: as_float(np.uint16(x) << 16)
    return lambda x: x


@overload(store, inline="always")
def _store(x, like):
    if like == FLOAT16:
        return lambda x, like: float_to_half(x)
    if like == BFLOAT16:
        return lambda x, like: float_to_bfloat(x)
    return lambda x, like: x


@overload(square, inline="always")
def _square(x):
    if isinstance(x, types.Complex):
        return lambda x: x.real * x.real + x.imag * x.imag
    return lambda x: x * x


@overload(times, inline="always")
def _times(x, factor):
    if isinstance(x, types.Complex):
        return lambda x, factor: complex(x.real * factor, x.imag * factor)
    return lambda x, factor: x * factor


@overload(over, inline="always")
def _over(x, divisor):
    if isinstance(x, types.Complex):
        return lambda x, divisor: complex(x.real / divisor, x.imag / divisor)
    return lambda x, divisor: x / divisor


@overload(multiplied, inline="always")
def _multiplied(x, factor):
    if factor == types.none:
        return lambda x, factor: x
    return lambda x, factor: times(x, type(x.real)(factor))


@overload(plus, inline="always")
def _plus(x, factor, y):
    if factor == types.none:
        return lambda x, factor, y: x
    return lambda x, factor, y: x + times(load(y), type(x.real)(factor))


@overload(ahead, inline="always")
def _ahead(step, factor, momentum):
    if factor == types.none:
        return lambda step, factor, momentum: momentum
    return lambda step, factor, momentum: step + times(momentum, type(step.real)(factor))


@overload(scaled, inline="always")
def _scaled(x, factor):
    def scale(x, factor):
        real = type(x.real)
        return times(times(x, real(factor[0])), real(factor[1]))

    return scale


@overload(clip)
def _clip(x, limit):
    def clip_complex(x, limit):
        modulus = np.hypot(x.real, x.imag)
        if modulus > limit:
            factor = limit / modulus
            return times(x, factor) if factor >= np.finfo(type(limit)).tiny else shortened(x, limit)
        return x

    def clip_real(x, limit):
        low = -limit if x < -limit else x
        return limit if low > limit else low

    return clip_complex if isinstance(x, types.Complex) else clip_real


@overload(carry, inline="always")
def _carry(x):
    if x == FLOAT16:
        return lambda x: np.int16((x & 0x7C00) + 0x0400)
    if x == BFLOAT16:
        return lambda x: np.int16((x & 0x7F80) + 0x0080)
    if x == types.float32:
        return lambda x: np.int32((np.float32(x).view(np.int32) & 0x7F800000) + 0x00800000)
    if x == types.float64:
        return lambda x: np.int64((np.float64(x).view(np.uint64) & EXPONENT) + LAST_OF_EXPONENT)
    return lambda x: carry(x.real) | carry(x.imag)


@numba.njit
def shortened(x, limit):
    """Return a complex number with its modulus, which may be beyond its dtype, brought to the limit."""
    quarter = type(limit)(0.25)
    real, imag = x.real * quarter, x.imag * quarter
    modulus = np.hypot(real, imag)
    return complex(real / modulus * limit, imag / modulus * limit)


@numba.njit
def as_float(bits):
    """Return the float32 that consists of these bits."""
    return np.uint32(bits).view(np.float32)


@numba.njit
def as_bits(x):
    """Return the bits of a float32."""
    return np.float32(x).view(np.uint32)


@numba.njit
def half_to_float(half):
    """Return the float32 of a float16, given as uint16, exactly."""
    magnitude = np.uint32((half & 0x7FFF) << 13)
    sign = np.uint32((half & 0x8000) << 16)
    # The exponent's bias differs by 112; multiplying also turns subnormal halves into normal floats.
    scaled = as_bits(as_float(magnitude) * np.float32(2.0**112))
    is_special = magnitude >= 0x0F800000  # infinity and NaN
    return as_float(sign | (magnitude | np.uint32(0x7F800000) if is_special else scaled))


@numba.njit
def float_to_half(x):
    """Return the float16 nearest to a float32, ties to even, as uint16."""
    bits = as_bits(x)
    magnitude = np.uint32(bits & 0x7FFFFFFF)
    rounding = 0x0FFF + ((magnitude >> 13) & 1)
    normal = np.uint32((magnitude - (112 << 23) + rounding) >> 13)
    # Adding 0.5 leaves the subnormal half, rounded, in the lowest bits of the sum.
    subnormal = np.uint32(as_bits(as_float(magnitude) + np.float32(0.5)) - 0x3F000000)
    half = subnormal if magnitude < 0x38800000 else normal
    if magnitude >= 0x477FF000:  # rounds beyond the largest half
        half = np.uint32(0x7E00 if magnitude > 0x7F800000 else 0x7C00)
    return np.uint16(((bits >> 16) & 0x8000) | half)


@numba.njit
def float_to_bfloat(x):
    """Return the bfloat16 nearest to a float32, ties to even, as int16."""
    bits = as_bits(x)
    rounded = np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
    quiet = np.uint32((bits >> 16) | 0x40)
    return np.int16(quiet if (bits & 0x7FFFFFFF) > 0x7F800000 else rounded)
