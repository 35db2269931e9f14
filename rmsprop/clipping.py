"""Clipping by norm: the factor that each gradient is multiplied by."""

import math
from collections.abc import Sequence

import numpy as np

from rmsprop.arrays import Array, namespace, on_device


@np.errstate(over="ignore", invalid="ignore")
def factors(squared_norms: Sequence[Array], clipnorm: float | None, global_clipnorm: float | None) -> list[Array]:
    """Return the factors that bring the norms of gradients within their limits.

    Each gradient is first shortened to `clipnorm`, then all of them together to `global_clipnorm`, as in Keras.
    A norm that is not finite leaves NaN behind, as in Keras: by `global_clipnorm` in all gradients.

    Parameters
    ----------
    squared_norms : sequence of arrays, each of shape (n,)
        One array for each backend, on its own device. They stay there if there is only one.
    clipnorm, global_clipnorm : float, optional
        The limits, >= 0. A limit of 0 makes the gradients zero.

    Returns
    -------
    list of arrays, each of shape (n,)
    """
    shortened = [_shortened(squares, clipnorm) for squares in squared_norms]
    if global_clipnorm is None:
        return shortened
    sums = [_sum_of_squares(f, squares) for f, squares in zip(shortened, squared_norms, strict=True)]
    # The one place where numbers leave their device: variables of several libraries.
    total = sum(map(float, sums)) if len(sums) > 1 else None  # `math.fsum` refuses to overflow
    return [_limited(f, s, total, global_clipnorm) for f, s in zip(shortened, sums, strict=True)]


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
    return limit / xp.maximum(norms, xp.full_like(norms, limit))


def _global(square: Array, limit: float) -> Array:
    xp = namespace(square)
    norm = xp.sqrt(square)
    return xp.where(xp.isfinite(norm), _shrink(norm, limit), xp.full_like(norm, math.nan))
