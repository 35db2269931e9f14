"""Encodings of slots in fewer bits: how a block of numbers becomes codes, and codes become numbers.

`bfloat16` (codes of int16)
    The upper half of a float32.
8 bits (codes of uint8, or of int8 for numbers with a sign)
    A float of 8 bits times the scale of its block, a power of two: of its bits, 3 are the mantissa, 5 the exponent
    (E5M3), or 4 where one is for the sign (E4M3). As in IEEE 754, there are subnormal numbers, infinities and
    NaN. The scale is the smallest with which the largest number of the block, say 1.875 at most, has a code: so
    decoded numbers are encoded to themselves, and need nothing but their values to be restored.

What is cut off is decided by a dither that is added before: multiples of a stride by the index of the element, to
which a displacement is added. Both are hashes of the step's number (see `rmsprop.variables.compact`), so that
the dithers of an element are as if by chance, at whichever steps it is updated: multiples of a fixed number would
repeat. So rounding has no bias on average, and depends on nothing else: not on threads, layout, or a pause between
two steps.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from rmsprop_numba.kernels import inlined_kernel
from rmsprop_numba.scalars import as_bits, as_float

NEAREST = np.uint32(0x80000000)
"""The dither that rounds each number to the nearest code."""

# Of the bits of a float32, a code of 8 bits has three of the mantissa, and what is left of the exponent when that
# of the smallest number is subtracted: what is at least 1 then has the codes of infinity and NaN.
SHIFT, DITHER_SHIFT = np.uint32(20), np.uint32(12)
OCTAVE = np.uint32(1 << 23)
UNSIGNED = np.uint32(0x40000000 - (32 << 23))
SIGNED = np.uint32(0x40000000 - (16 << 23))
TWO = np.uint32(0x40000000)

SIGN = np.uint32(0x80000000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
INFINITY = np.uint32(0x7F800000)
QUIET_NAN = np.uint32(0x7FC0)
ANY_NAN = np.uint32(0x7FF00000)


def decoded(code: Any, scale: Any) -> Any:
    """Return the number of a code, in a block of this scale, or None for bfloat16."""


def encoded(x: Any, scale: Any, dither: Any, like: Any) -> Any:
    """Return the code of a number, of the dtype of `like`; the dither is of uint32."""


def bits_of(x: Any) -> Any:
    """Return the bits of a float, as an integer of its size."""


def number_of(bits: Any) -> Any:
    """Return the float of these bits."""


@overload(decoded, inline="always")
def _decoded(code, scale):
    def bfloat16(code, scale):
        return as_float(np.uint32(np.uint16(code)) << np.uint32(16))

    def unsigned(code, scale):
        return magnitude_of(np.uint32(code), UNSIGNED) * scale

    def signed(code, scale):
        bits = as_bits(magnitude_of(np.uint32(np.uint32(code) & np.uint32(127)), SIGNED))
        return as_float(bits | np.uint32(np.uint32(np.uint32(code) << np.uint32(24)) & SIGN)) * scale

    return {types.int16: bfloat16, types.uint8: unsigned, types.int8: signed}[code]


@overload(encoded, inline="always")
def _encoded(x, scale, dither, like):
    def bfloat16(x, scale, dither, like):
        bits = as_bits(x)
        kept = np.uint32(np.uint32(bits + np.uint32(dither >> np.uint32(16))) >> np.uint32(16))
        return np.int16(QUIET_NAN if np.uint32(bits & MAGNITUDE) > INFINITY else kept)

    def unsigned(x, scale, dither, like):
        return np.uint8(code_of(np.float32(x * (type(x)(0.5) / scale)), UNSIGNED, dither))

    def signed(x, scale, dither, like):
        bits = as_bits(x * (type(x)(0.5) / scale))
        code = code_of(as_float(bits & MAGNITUDE), SIGNED, dither)
        sign = np.uint32(np.uint32(bits & SIGN) >> np.uint32(24))
        return np.int8(np.uint32(code & np.uint32(127)) | sign)

    return {types.int16: bfloat16, types.uint8: unsigned, types.int8: signed}[like]


@inlined_kernel
def magnitude_of(code, zero):
    """Return the number of a code without sign, in a block with a scale of 1; `zero` are the bits of code 0."""
    bits = np.uint32(np.uint32(code << SHIFT) + np.uint32(zero + OCTAVE))
    x = as_float(np.uint32(bits | INFINITY) if bits >= TWO else bits)
    subnormal = x + x - as_float(np.uint32(zero + np.uint32(2) * OCTAVE))
    return x if x < subnormal else subnormal


@inlined_kernel
def code_of(x, zero, dither):
    """Return the code, in its lowest bits, of a number without sign that was divided by twice the scale."""
    subnormal = x * np.float32(0.5) + as_float(zero)
    bits = min(as_bits(x if x > subnormal else subnormal), ANY_NAN)  # or else the dither might carry NaN to zero
    return np.uint32(np.uint32(bits + np.uint32(dither >> DITHER_SHIFT)) >> SHIFT)


@inlined_kernel
def scale_of(x, largest):
    """Return the scale of a block: a power of two, of which no finite number is more than 1.875 times as much.

    `largest` are the bits of its largest magnitude. Maxima of integers with a sign are found in vector registers.
    """
    octave, infinity = bits_of(np.finfo(x.dtype).tiny), bits_of(x.dtype.type(np.inf))
    if largest >= infinity:  # which is rare: all over again, without what is not finite
        largest = octave
        for j in range(x.size):
            bits = bits_of(abs(x[j]))
            largest = max(largest, bits if bits < infinity else octave)
    rounded = (max(largest, octave) + octave // 8 - 1) & infinity
    return number_of(type(octave)(min(rounded, infinity - octave)))


@overload(bits_of, inline="always")
def _bits_of(x):
    if x == types.float32:
        return lambda x: np.float32(x).view(np.int32)
    return lambda x: np.float64(x).view(np.int64)


@overload(number_of, inline="always")
def _number_of(bits):
    if bits == types.int32:
        return lambda bits: np.int32(bits).view(np.float32)
    return lambda bits: np.int64(bits).view(np.float64)
