"""Clipping by norm: the factor that each gradient is multiplied by."""

import math
from collections.abc import Sequence

import numpy as np

from rmsprop.arrays import Array, namespace, on_device, place_beside


@np.errstate(over="ignore", invalid="ignore")
def factors(
    squared_norms: Sequence[Array], clipnorm: float | None, global_clipnorm: float | None, loss_scale: float = 1.0
) -> list[Array]:
    """Return the factors that bring the norms of gradients within their limits, and divide by the loss scale.

    Each gradient is first shortened to `clipnorm`, then all of them together to `global_clipnorm`, as in Keras.
    A norm that is not finite leaves NaN behind, as in Keras: by `global_clipnorm` in all gradients.

    Parameters
    ----------
    squared_norms : sequence of arrays, each of shape (n,)
        One array for each backend, on its own device. They stay there if there is only one.
    clipnorm, global_clipnorm : float, optional
        The limits, >= 0, of gradients that have not been divided. A limit of 0 makes the gradients zero.
    loss_scale : float, default 1.0

    Returns
    -------
    list of arrays, each of shape (n,)
    """
    shortened = [_shortened(squares, clipnorm) for squares in squared_norms]
    if global_clipnorm is None:
        return [_divided(f, loss_scale) for f in shortened]
    sums = [_sum_of_squares(f, squares) for f, squares in zip(shortened, squared_norms, strict=True)]
    # The one place where numbers leave their device: variables of several libraries.
    total = sum(map(float, sums)) if len(sums) > 1 else None  # `math.fsum` refuses to overflow
    limited = [_limited(f, s, total, global_clipnorm) for f, s in zip(shortened, sums, strict=True)]
    return [_divided(f, loss_scale) for f in limited]


def inverse(like: Array, count: int, loss_scale: float) -> Array:
    """Return factors that only divide by the loss scale, in the widest precision and on the device of an array."""
    xp = namespace(like)
    known = xp.__array_namespace_info__().dtypes(kind="real floating")
    with on_device(like):
        dtype = known.get("float64", xp.float32)
        return xp.full((count,), 1.0 / loss_scale, dtype=dtype, device=place_beside(like))


def _divided(factors: Array, loss_scale: float) -> Array:
    if loss_scale == 1.0:
        return factors
    with on_device(factors):
        return factors / loss_scale


def _shortened(squares: Array, limit: float | None) -> Array:
    xp = namespace(squares)
    with on_device(squares):
        return xp.ones_like(squares) if limit is None else _shrink(xp.sqrt(squares), limit)


def _sum_of_squares(factors: Array, squares: Array) -> Array:
    with on_device(squares):
        return namespace(squares).sum(factors * factors * squares)


def _limited(factors: Array, square: Array, total: float | None, limit: float) -> Array:
    with on_device(factors):
        square = square if total is None else namespace(square).full_like(square, total)
        return factors * _global(square, limit)


def _shrink(norms: Array, limit: float) -> Array:
    """Return ``min(1, limit / norm)``, also for a limit of 0."""
    xp = namespace(norms)
    if limit == 0:
        return xp.zeros_like(norms)
    shrunk = limit / xp.maximum(norms, xp.full_like(norms, limit))
    return xp.where(norms <= limit, xp.ones_like(norms), shrunk)  # a limit may be infinite, times a loss scale


def _global(square: Array, limit: float) -> Array:
    xp = namespace(square)
    norm = xp.sqrt(square)
    return xp.where(xp.isfinite(norm), _shrink(norm, limit), xp.full_like(norm, math.nan))
