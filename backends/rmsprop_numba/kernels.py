"""The update and the norm, as loops over memory.

Arithmetic is strict (no fastmath), so that results depend neither on the number of threads nor on the layout.
An argument that is None, such as the slot `momentum` where there is none, is removed when a kernel is compiled.
"""

import numba
import numpy as np

from rmsprop_numba.caching import compiled
from rmsprop_numba.optional import item, part
from rmsprop_numba.scalars import ahead, carry, clip, load, multiplied, over, plus, scaled, square, store, times

kernel = compiled(nogil=True)
inlined_kernel = compiled(nogil=True, forceinline=True)
parallel_kernel = compiled(nogil=True, parallel=True)

CHUNK = 16_384
"""Elements that one thread takes at a time."""

BLOCK = 4_096
"""Elements that are summed together; blocks are then added in order, by whichever threads computed them."""

LANES = 16
"""Partial sums in a block, so that it is summed in vector registers."""

ROWS = 8
"""Elements that are added to a partial sum before it goes back to memory."""


@inlined_kernel
def stepped(v, g, rms, momentum, mg, numbers, limit, factor):
    """Return what is to be subtracted from an element, and its slots after a step; a slot that is None stays so.

    The lines are those of `rmsprop.formula`, and so are the `numbers`. An element that no weight decay needs is
    not read.
    """
    rate, outer_rate, weight_decay, shrinkage, nesterov_mu, rho, one_minus_rho, mu = numbers[:8]
    epsilon_inside, epsilon_outside, mg_scale = numbers[8:11]
    real = type(rms)  # a double among the factors would make a double of everything
    gradient = load(g)
    if limit is not None:
        gradient = clip(gradient, real(limit))
    if factor is not None:
        gradient = scaled(gradient, factor)
    gradient = plus(gradient, weight_decay, v)
    new_rms = real(rho) * rms + real(one_minus_rho) * square(gradient)
    variance, new_mg = new_rms, None
    if mg is not None:
        new_mg = times(mg, real(rho)) + times(gradient, real(one_minus_rho))
        variance = new_rms - square(multiplied(new_mg, mg_scale))
        if variance < real(0):  # by rounding
            variance = real(0)
        if np.isinf(new_rms):  # and so may be the square of the mean: their difference would be NaN
            variance = new_rms
    root = np.sqrt(variance + real(epsilon_inside)) + real(epsilon_outside)
    step = over(times(gradient, real(rate)), root)
    new_momentum = None
    if momentum is not None:
        new_momentum = times(momentum, real(mu)) + step
        step = ahead(step, nesterov_mu, new_momentum)
    return plus(multiplied(step, outer_rate), shrinkage, v), new_rms, new_momentum, new_mg


@inlined_kernel  # a call would take as long as the update of ten elements
def sweep(v, g, rms, momentum, mg, average, numbers, limit, factor):
    """Update elements of one-dimensional arrays."""
    ema, one_minus_ema = numbers[11:]
    for i in range(v.size):
        before = load(v[i])
        change, rms[i], new_momentum, new_mg = stepped(
            v[i], g[i], rms[i], item(momentum, i), item(mg, i), numbers, limit, factor
        )
        v[i] = store(before - change, v[i])
        if momentum is not None:
            momentum[i] = new_momentum
        if mg is not None:
            mg[i] = new_mg
        if average is not None:
            average[i] = averaged(average[i], v[i], ema, one_minus_ema)


@inlined_kernel
def averaged(average, v, ema, one_minus_ema):
    """Return the average of an element after a step."""
    return multiplied(average, ema) + multiplied(load(v), one_minus_ema)


@kernel
def sweep_matrix(v, g, rms, momentum, mg, average, numbers, limit, factor):
    """Update two-dimensional arrays of any strides, row by row."""
    for i in range(len(v)):
        sweep(v[i], g[i], rms[i], item(momentum, i), item(mg, i), item(average, i), numbers, limit, factor)


@parallel_kernel
def sweep_parallel(v, g, rms, momentum, mg, average, numbers, limit, factor):
    """Do as `sweep`, in several threads."""
    for chunk in numba.prange((v.size + CHUNK - 1) // CHUNK):
        a, b = chunk * CHUNK, min((chunk + 1) * CHUNK, v.size)
        sweep(
            v[a:b], g[a:b], rms[a:b], part(momentum, a, b), part(mg, a, b), part(average, a, b),
            numbers, limit, factor,
        )  # fmt: skip


@parallel_kernel
def sweep_matrix_parallel(v, g, rms, momentum, mg, average, numbers, limit, factor):
    """Do as `sweep_matrix`, in several threads."""
    for i in numba.prange(len(v)):
        sweep(v[i], g[i], rms[i], item(momentum, i), item(mg, i), item(average, i), numbers, limit, factor)


@kernel
def square_sum(g, limit, scale, total):
    """Return the sum of squares of a block, in double precision, after clipping by value and scaling."""
    for lane in range(LANES):
        total[lane] = 0.0
    many, whole = g.size // (ROWS * LANES) * (ROWS * LANES), g.size // LANES * LANES
    for start in range(0, many, ROWS * LANES):
        for lane in range(LANES):
            partial = total[lane]
            for row in range(ROWS):
                partial += double_square(g[start + row * LANES + lane], limit, scale)
            total[lane] = partial
    for start in range(many, whole, LANES):
        for lane in range(LANES):
            total[lane] += double_square(g[start + lane], limit, scale)
    for i in range(whole, g.size):
        total[i - whole] += double_square(g[i], limit, scale)
    result = 0.0
    for lane in range(LANES):
        result += total[lane]
    return result


@kernel
def double_square(x, limit, scale):
    """Return ``|scale * x|**2`` in double precision, after clipping by value; a scale of None is 1."""
    gradient = load(x)
    if limit is not None:
        gradient = clip(gradient, type(gradient.real)(limit))
    if scale is not None:
        return (scale * gradient.real) ** 2 + (scale * gradient.imag) ** 2
    return np.float64(gradient.real) ** 2 + np.float64(gradient.imag) ** 2


@kernel
def is_finite(g):
    """Tell whether all elements are finite."""
    for start in range(0, g.size, BLOCK):
        block = g[start : start + BLOCK]
        carried = 0
        for i in range(block.size):
            carried |= carry(block[i])
        if carried < 0:
            return False
    return True
