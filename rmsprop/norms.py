"""Norms of gradients: the factors that they are clipped by, over the whole range of a dtype, and if all is finite.

A factor is a pair of numbers that a gradient is multiplied by, one after the other: their product may be too small
for a number of its own. The second one is a power of two, mostly 1.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from operator import add
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.dtypes import name_of
from rmsprop.arrays.libraries import Array, as_beside, is_on_host, namespace, on_device, place_beside, to_numpy
from rmsprop.formula import Hyperparameters

SMALLEST = 2.0**-126
"""The smallest normal number of single precision, in which smaller factors would lose digits."""

HUGE = 2.0**64
"""Norms that are larger are made smaller by it before others are divided by them."""


class Range(NamedTuple):
    """What a dtype can hold of squares."""

    least: float
    """Norms that exceed a limit from here on don't notice that small squares underflow."""
    scale: float
    """A power of two: squares of what is infinite divided by it, or smaller than `least` times it, fit in."""


RANGES = {"float64": Range(2.0**-480, 2.0**600), "float32": Range(2.0**-40, 2.0**90)}


class Measure(NamedTuple):
    """How to get the norms of gradients of one backend."""

    squared: Callable[[float], Array]
    """Returns the sums of ``|scale * g|**2``, of shape (n,), given a scale; it reads all gradients."""
    may_be_double: bool = True
    """Whether gradients may be in double precision; sums of others hold the whole range if they are double."""


class Clipping(NamedTuple):
    """The factors for the gradients of one backend, and what was found out on the way."""

    factors: Array
    """Of shape (n, 2)."""
    magnitudes: Array
    """Of shape (n,): a number that is finite if a gradient and the norms that it is clipped by are."""


@np.errstate(all="ignore")
def clippings(measures: Sequence[Measure], hyper: Hyperparameters) -> list[Clipping]:
    """Return the factors that bring the norms of gradients within their limits, and divide by the loss scale.

    Each gradient is first shortened to `clipnorm`, then all of them together to `global_clipnorm`, as in Keras.
    The limits, >= 0, are those of gradients that have not been divided; a limit of 0 makes the gradients zero.
    A norm that is not finite, or beyond the dtype of the squares, leaves NaN behind by `global_clipnorm`: in all
    gradients, as in Keras.

    Parameters
    ----------
    measures : sequence of Measure
        One for each backend. Factors stay on the device if there is only one.
    hyper : Hyperparameters
    """
    squares = [measure.squared(1.0) for measure in measures]
    if len(squares) == 1:
        with on_device(squares[0]):
            return _clippings(measures, squares, hyper)
    # The one place where numbers leave their device: variables of several libraries.
    there = [Measure(partial(_squared_on_host, measure), measure.may_be_double) for measure in measures]
    found = _clippings(there, [_on_host(s) for s in squares], hyper)
    return [Clipping(_near(s, c.factors), c.magnitudes) for s, c in zip(squares, found, strict=True)]


def traced_clipping(squares: Array, hyper: Hyperparameters) -> Clipping:
    """Return the factors as `clippings` does, of squares that can't be looked at, and may be infinite."""
    return _precise([namespace(squares).sqrt(squares)], hyper)[0]


def inverse(like: Array, count: int, loss_scale: float) -> Array:
    """Return factors that only divide by the loss scale, in the widest precision and on the device of an array."""
    xp = namespace(like)
    known = xp.__array_namespace_info__().dtypes(kind="real floating")
    with on_device(like):
        dtype = known.get("float64", xp.float32)
        return _paired(xp.full((count,), 1.0 / loss_scale, dtype=dtype, device=place_beside(like)))


def _squared_on_host(measure: Measure, scale: float) -> Array:
    return _on_host(measure.squared(scale))


def _on_host(squares: Array) -> Array:
    return to_numpy(squares).astype(np.float64)


def _near(like: Array, factors: Array) -> Array:
    with on_device(like):
        return as_beside(factors, like, like.dtype)


def _paired(factors: Array) -> Array:
    if _is_numpy(factors):
        pairs = np.ones((len(factors), 2))
        pairs[:, 0] = factors
        return pairs
    xp = namespace(factors)
    return xp.stack([factors, xp.ones_like(factors)], axis=1)


def _clippings(measures: Sequence[Measure], squares: list[Array], hyper: Hyperparameters) -> list[Clipping]:
    usual = _usual_factors(squares, hyper) if is_on_host(squares[0]) else None
    if usual is not None:
        return [Clipping(_paired(f), s) for f, s in zip(usual, squares, strict=True)]
    return _precise([_norms(m, s, hyper) for m, s in zip(measures, squares, strict=True)], hyper)


def _usual_factors(squares: list[Array], hyper: Hyperparameters) -> list[Array] | None:
    """Return the factors as plain numbers; None if one of them, or a sum of squares, has lost digits."""
    xp, least = namespace(squares[0]), RANGES[name_of(squares[0].dtype)].least
    if not all([least <= limit < math.inf for limit in limits(hyper)]):
        return None
    factors, parts = [], squares
    if hyper.clipnorm is not None:
        factors = [_shrunk(xp, xp.sqrt(s), hyper.clipnorm) for s in squares]
        parts = [f * f * s for f, s in zip(factors, squares, strict=True)]
    if hyper.global_clipnorm is not None:
        total = reduce(add, [xp.sum(p) for p in parts])
        if not least**2 <= total < math.inf:
            return None
        shared = _shrunk(xp, xp.sqrt(total), hyper.global_clipnorm)
        factors = [f * shared for f in factors] or [s * 0 + shared for s in squares]
    if hyper.loss_scale != 1.0:
        factors = [f / hyper.loss_scale for f in factors]
    return factors if all([_smallest(xp, f) >= SMALLEST for f in factors]) else None  # nor is NaN


def _shrunk(xp: ModuleType, norms: Array, limit: float) -> Array:
    return limit / (np.maximum(norms, limit) if _is_numpy(norms) else xp.maximum(norms, norms * 0 + limit))


def _smallest(xp: ModuleType, x: Array) -> Any:
    return np.minimum.reduce(x) if _is_numpy(x) else xp.min(x)


def _is_numpy(x: Array) -> bool:
    """Tell whether an array is one of NumPy, for which there are faster calls."""
    return isinstance(x, np.ndarray)


def limits(hyper: Hyperparameters) -> list[float]:
    """Return the limits of norms that there are."""
    return [limit for limit in (hyper.clipnorm, hyper.global_clipnorm) if limit is not None]


def _norms(measure: Measure, squares: Array, hyper: Hyperparameters) -> Array:
    """Return the norms, for which gradients are read again if the squares are beyond the range of their dtype."""
    xp, (least, scale) = namespace(squares), RANGES[name_of(squares.dtype)]
    norms = xp.sqrt(squares)
    if not measure.may_be_double and scale == RANGES["float64"].scale:
        return norms
    if bool(xp.any(too_large := xp.isinf(squares))):
        norms = xp.where(too_large, xp.sqrt(measure.squared(1 / scale)) * scale, norms)
    if min(limits(hyper)) < least and bool(xp.any(too_small := squares < least**2)):
        norms = xp.where(too_small, xp.sqrt(measure.squared(scale)) / scale, norms)
    return norms


def _precise(norms: list[Array], hyper: Hyperparameters) -> list[Clipping]:
    """Return factors of any size: what a norm is to become, divided by what it is."""
    xp, targets = namespace(norms[0]), norms
    if hyper.clipnorm is not None:
        targets = [xp.minimum(n, xp.full_like(n, hyper.clipnorm)) for n in norms]
    magnitudes, total = norms, _total(targets)
    # A norm of 0 may be one whose squares vanish, so far below its limit is it: a norm of 1 has the same factor.
    targets = [xp.where(n == 0, xp.ones_like(n), t) for n, t in zip(norms, targets, strict=True)]
    norms = [xp.where(n == 0, xp.ones_like(n), n) for n in norms]
    if hyper.global_clipnorm is not None:
        limit = hyper.global_clipnorm
        unknown = xp.where(xp.isfinite(total), xp.zeros_like(total), xp.full_like(total, math.nan))
        # Of a number by an array, PyTorch takes the inverses of the array first, which may be infinite.
        ratio, tiny = xp.full_like(total, limit) / total, float(xp.finfo(total.dtype).smallest_normal)
        # Of the two ways to write it, one keeps its digits.
        shares = [xp.where(ratio >= tiny, t * ratio, _quotient(t, total) * limit) for t in targets]
        targets = [xp.where(total <= limit, t, s) + unknown for t, s in zip(targets, shares, strict=True)]
        magnitudes = [xp.where(xp.isfinite(n), n + unknown, n) for n in magnitudes]
    factors = [_pairs(n, t, hyper.loss_scale) for n, t in zip(norms, targets, strict=True)]
    return [Clipping(f, m) for f, m in zip(factors, magnitudes, strict=True)]


def _total(norms: list[Array]) -> Array:
    """Return the norm of all together."""
    xp = namespace(norms[0])
    largest = reduce(xp.maximum, [xp.max(n) for n in norms])
    unit = xp.where((largest > 0) & xp.isfinite(largest), largest, xp.ones_like(largest))
    return largest * xp.sqrt(reduce(add, [xp.sum(_quotient(n, unit) ** 2) for n in norms]))


def _quotient(norms: Array, total: Array) -> Array:
    """Return ``norms / total``, for which XLA multiplies by ``1 / total``, which may be too small a number."""
    xp = namespace(norms)
    unit = xp.where(total > HUGE, xp.full_like(total, 1 / HUGE), xp.ones_like(total))
    return (norms * unit) / (total * unit)


def _pairs(norms: Array, targets: Array, loss_scale: float) -> Array:
    """Return ``targets / loss_scale / norms``, each as the product of two numbers."""
    xp = namespace(norms)
    tiny = float(xp.finfo(norms.dtype).smallest_normal)
    is_kept, one, scaled = targets >= norms, xp.ones_like(norms), targets / loss_scale
    factors = xp.where(is_kept, one / loss_scale, scaled / norms)  # a norm may be 0, or infinite
    tails = xp.where(factors >= SMALLEST, one, xp.where(factors >= tiny, one * SMALLEST, one * tiny))
    heads = xp.where(factors >= tiny, factors / tails, scaled / tiny / norms)
    return xp.stack([heads, tails], axis=1)


def first(magnitudes: Array | None, hyper: Hyperparameters, find: Callable[[], int | None]) -> int | None:
    """Return the position of the first gradient that is not finite, or is clipped by a norm beyond its dtype.

    Norms are computed in double precision where there is one: those of finite gradients are infinite from 1.8e308
    on, or in a library without it, as JAX has by default, from 3.4e38 on.

    Parameters
    ----------
    magnitudes : array, shape (n,), or None
        See `Clipping`, if there are any: they save to read the gradients again.
    hyper : Hyperparameters
    find : callable
        Returns the position of the first gradient with a NaN or an infinity, or None.
    """
    if are_finite(magnitudes, hyper):
        return None
    position = find()
    if position is None and magnitudes is not None:
        return first_beyond(enumerate(listed(magnitudes)))
    return position


def are_finite(magnitudes: Array | None, hyper: Hyperparameters) -> bool:
    """Tell whether gradients are known to be finite by their norms, before which infinities were not clipped."""
    if magnitudes is None or hyper.clipvalue is not None:
        return False
    with on_device(magnitudes), np.errstate(all="ignore"):
        xp = namespace(magnitudes)
        return math.isfinite(float(xp.sum(magnitudes))) or bool(xp.all(xp.isfinite(magnitudes)))


def listed(magnitudes: Array | None) -> list[float]:
    """Return norms as numbers, if there are any."""
    return [] if magnitudes is None else to_numpy(magnitudes).tolist()


def first_beyond(norms: Iterable[tuple[int, float]]) -> int | None:
    """Return the position of the first norm that is infinite or, if none is, of the first that is not known."""
    numbers = list(norms)
    infinite = [position for position, norm in numbers if math.isinf(norm)]
    return min(infinite or [position for position, norm in numbers if math.isnan(norm)], default=None)
