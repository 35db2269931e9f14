"""Clipping by norm: the factor that each gradient is multiplied by."""

import math
from collections.abc import Sequence

from rmsprop.arrays import Array, namespace


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
    if clipnorm is None:
        shortened = [namespace(squares).ones_like(squares) for squares in squared_norms]
    else:
        shortened = [_shrink(namespace(squares).sqrt(squares), clipnorm) for squares in squared_norms]
    if global_clipnorm is None:
        return shortened
    sums = [
        namespace(squares).sum(factor * factor * squares)
        for factor, squares in zip(shortened, squared_norms, strict=True)
    ]
    if len(sums) > 1:  # the one place where numbers leave their device: variables of several libraries
        total = math.fsum(map(float, sums))
        sums = [namespace(s).full_like(s, total) for s in sums]
    return [factor * _global(s, global_clipnorm) for factor, s in zip(shortened, sums, strict=True)]


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
