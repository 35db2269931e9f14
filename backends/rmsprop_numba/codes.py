"""Encodings of slots in fewer bits: how a block of numbers becomes codes, and codes become numbers.

`bfloat16` (codes of int16)
    The upper half of a float32.
8 bits (codes of uint8, or of int8 for numbers with a sign, which then takes one of the bits)
    A number is ``scale * (2**(j // 8) * (1 + j % 8 / 8) - 1.125) / top`` with ``j = code + 1``: a small float with
    three bits of mantissa that goes on to zero in equal steps, like the µ-law of telephony (ITU-T G.711). The
    scale is the largest finite magnitude of the block, and what the largest code stands for. So numbers that
    were decoded are encoded to themselves, and need nothing but their values to be restored.

What is cut off is decided by a dither that is added before: a lattice in the index of the element and the number
of the step whose values are spread evenly over each element's steps and over each step's elements. So rounding has
no bias on average, and depends on nothing else: not on threads, layout, or a pause between two steps.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from rmsprop_numba.kernels import inlined_kernel
from rmsprop_numba.scalars import as_bits, as_float

STRIDE = 0xC13FA9A9
"""Of the dither, from element to element: 2**32 over the plastic number, whose powers make an even lattice."""

STEP_STRIDE = 0x91E10DA5
"""Likewise from step to step: 2**32 over the square of that number."""

SLOT_STRIDE = 0x6D8A8B3F
"""Likewise from slot to slot: over its cube."""

NEAREST = np.uint32(0x80000000)
"""With a stride of zero, the dither that rounds to the nearest code."""

MANTISSA = 3
"""Bits of mantissa in a code of 8 bits."""

SHIFT = np.uint32(23 - MANTISSA)
DITHER_SHIFT = np.uint32(32 - SHIFT)

# The bits of the float that code 0 is cut from; the code after the last one is cut from 1.0.
UNSIGNED = np.uint32(0x3F800000 - (255 << 20))
SIGNED = np.uint32(0x3F800000 - (127 << 20))
UNSIGNED_ZERO = UNSIGNED.view(np.float32)
SIGNED_ZERO = SIGNED.view(np.float32)
SIGNED_RANGE = np.float32(1) - SIGNED_ZERO
SIGNED_FACTOR = np.float32(1) / SIGNED_RANGE  # times the range it is 1.0 to the bit

SIGN = np.uint32(0x80000000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
INFINITY = np.uint32(0x7F800000)
QUIET_NAN = np.uint32(0x7FC0)

# The largest number of a block has to reach the last code in spite of two roundings.
SLIGHTLY_MORE = 1 + 2.0**-21


def decode(codes: Any, scales: Any, k: Any, out: Any) -> Any:
    """Write the numbers of block `k`, given its codes, to `out`."""


def encode(x: Any, codes: Any, scales: Any, k: Any, dither: Any, stride: Any) -> Any:
    """Write the codes of numbers, and the scale of their block `k`.

    `dither` is that of the first element, `stride` what it grows by; both are of uint32.
    """


def bits_of(x: Any) -> Any:
    """Return the bits of a float, as an integer of its size."""


def number_of(bits: Any) -> Any:
    """Return the float of these bits."""


@overload(decode)
def _decode(codes, scales, k, out):
    def bfloat16(codes, scales, k, out):
        for j in range(out.size):
            out[j] = as_float(np.uint32(np.uint16(codes[j])) << np.uint32(16))

    def unsigned(codes, scales, k, out):
        scale = scales[k]
        for j in range(out.size):
            out[j] = (as_float(np.uint32(np.uint32(codes[j]) << SHIFT) + UNSIGNED) - UNSIGNED_ZERO) * scale

    def signed(codes, scales, k, out):
        scale = scales[k]
        for j in range(out.size):
            code = np.uint32(np.uint8(codes[j]))
            magnitude = as_float(np.uint32((code & np.uint32(127)) << SHIFT) + SIGNED) - SIGNED_ZERO
            sign = np.uint32(np.uint32(code << np.uint32(24)) & SIGN)
            out[j] = as_float(as_bits(magnitude * SIGNED_FACTOR) | sign) * scale

    return {types.int16: bfloat16, types.uint8: unsigned, types.int8: signed}[codes.dtype]


@overload(encode)
def _encode(x, codes, scales, k, dither, stride):
    def bfloat16(x, codes, scales, k, dither, stride):
        for j in range(x.size):
            bits = as_bits(x[j])
            kept = np.uint32(
                np.uint32(bits + np.uint32(dither_of(j, dither, stride) >> np.uint32(16))) >> np.uint32(16)
            )
            is_nan = np.uint32(bits & MAGNITUDE) > INFINITY
            codes[j] = np.int16(QUIET_NAN if is_nan else kept)

    def unsigned(x, codes, scales, k, dither, stride):
        scales[k] = scale = largest(x)
        inverse = x.dtype.type(SLIGHTLY_MORE) / scale
        for j in range(x.size):
            bits = np.uint32(as_bits(x[j] * inverse + UNSIGNED_ZERO) - UNSIGNED)
            code = np.uint32(np.uint32(bits + np.uint32(dither_of(j, dither, stride) >> DITHER_SHIFT)) >> SHIFT)
            codes[j] = min(code, np.uint32(255))  # what is not finite, too

    def signed(x, codes, scales, k, dither, stride):
        scales[k] = scale = largest(x)
        inverse = x.dtype.type(SLIGHTLY_MORE * SIGNED_RANGE) / scale
        for j in range(x.size):
            scaled = as_bits(x[j] * inverse)
            bits = np.uint32(as_bits(as_float(scaled & MAGNITUDE) + SIGNED_ZERO) - SIGNED)
            code = np.uint32(np.uint32(bits + np.uint32(dither_of(j, dither, stride) >> DITHER_SHIFT)) >> SHIFT)
            sign = np.uint32(np.uint32(scaled >> np.uint32(24)) & np.uint32(128))
            codes[j] = np.uint8(min(code, np.uint32(127)) | sign)

    return {types.int16: bfloat16, types.uint8: unsigned, types.int8: signed}[codes.dtype]


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


@inlined_kernel
def dither_of(j, dither, stride):
    """Return the dither of an element, as 32 bits."""
    # A sum that goes from element to element would not be taken to vector registers.
    return np.uint32(dither + np.uint32(np.uint32(j) * stride))


@inlined_kernel
def largest(x):
    """Return the largest finite magnitude, but at least the smallest normal number."""
    # Maxima of integers with a sign are found in vector registers, others not always.
    real = x.dtype.type
    nothing, infinity, best = bits_of(real(0)), bits_of(real(np.inf)), bits_of(np.finfo(x.dtype).tiny)
    for j in range(x.size):
        bits = bits_of(abs(x[j]))
        best = max(best, bits if bits < infinity else nothing)
    return number_of(best)
