"""Verdicts on gradients: what one is, compared with slopes along some directions."""

import math
from typing import NamedTuple

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.gradient_checks.differences import Slope

TOO_COARSE = 0.2
"""Error of the slopes, in parts of the largest, beyond which nothing can be said."""

TELLING = 0.25
"""Tolerance, in parts of the largest slope, beyond which a gradient that agrees may do so by chance."""

CHANCE = 0.1
"""Tolerance, in parts of the misfit, beyond which a fault may look by chance as if it were of a certain kind."""

KINK = 0.01
"""Error by kinks, in parts of the largest slope, beyond which a gradient may be that of another side."""

ERRORS = 8.0
"""Tolerance in errors of the slopes, which are estimates themselves."""

ROUNDING = 100.0
"""Error of slopes, in parts of that by rounding alone, up to which a gradient of 0 can be told from a small one."""


class Verdict(NamedTuple):
    """A word on a gradient.

    Attributes
    ----------
    word : str
    scale : float
        What the true gradient is to be multiplied by; NaN if there is no such number.
    reason : str
        For "unclear", why.
    misfit, error : float
        Of predicted and measured slopes, in parts of the largest.
    """

    word: str
    scale: float = math.nan
    reason: str = ""
    misfit: float = 0.0
    error: float = 0.0


class Evidence(NamedTuple):
    """A gradient, directions, and the slopes that were measured along these.

    Attributes
    ----------
    gradient : array of float64 or complex128
    directions : list of arrays, shape of `gradient`
        Real or imaginary ones.
    slopes : list of Slope
    is_complex : bool
        Whether the variable is.
    precision : float
        The epsilon of the loss.
    """

    gradient: Host
    directions: list[Host]
    slopes: list[Slope]
    is_complex: bool
    precision: float

    def predicted(self, gradient: Host) -> Host:
        """Return the slopes that a gradient predicts, Re(sum(conj(gradient) direction))."""
        return np.array([np.vdot(gradient, way).real for way in self.directions])


def judged(given: Evidence) -> Verdict:
    """Return the first verdict that fits."""
    measured = np.array([slope.value for slope in given.slopes])
    error = max(slope.error for slope in given.slopes)
    if not np.all(np.isfinite(given.gradient)):
        return Verdict("wrong", reason="not finite", misfit=math.inf)
    if math.isinf(error):
        return Verdict("unclear", reason="not finite", error=error)
    predicted = given.predicted(given.gradient)
    if not given.gradient.any():
        return _of_zeros(given, measured, error)
    size = max(_largest(predicted), _largest(measured))
    misfit = _largest(predicted - measured)
    floor = min(20 * given.precision ** (2 / 3), 0.1)
    shares = {"misfit": misfit / size if size else 0.0, "error": error / size if size else math.inf}
    if error > TOO_COARSE * size or size == 0:
        return Verdict("unclear", reason=_reason(given, size), **shares)
    tolerance = ERRORS * error + floor * size
    if misfit <= tolerance:
        if tolerance > TELLING * size:
            return Verdict("unclear", reason=_reason(given, size), **shares)
        is_odd = not given.is_complex and np.iscomplexobj(given.gradient)
        return Verdict("right", 1.0, "complex" if is_odd else "", **shares)
    tolerance = ERRORS * error + floor * _largest(measured)
    word, scale = _fitting(given, measured, tolerance)
    is_kinked = any(slope.cause == "kink" and slope.error > KINK * size for slope in given.slopes)
    if is_kinked or (word != "wrong" and tolerance > CHANCE * misfit):
        return Verdict("unclear", reason=_reason(given, size), **shares)
    return Verdict(word, scale, **shares)


def _of_zeros(given: Evidence, measured: Host, error: float) -> Verdict:
    """Return the verdict on a gradient that is 0 everywhere."""
    size = _largest(measured)
    if size > ERRORS * error:
        return Verdict("zero", 0.0, misfit=1.0, error=error / size)
    if error > ROUNDING * max(slope.rounding for slope in given.slopes):
        return Verdict("unclear", reason=_reason(given, size), misfit=1.0, error=error / size if size else math.inf)
    return Verdict("right", 1.0)


def _fitting(given: Evidence, measured: Host, tolerance: float) -> tuple[str, float]:
    """Return what is wrong with a gradient that does not agree, and the scale of the true one in it."""
    gradient, is_real = given.gradient, np.array([not np.iscomplexobj(way) for way in given.directions])
    predicted = given.predicted(gradient)
    scale = _scale(predicted, measured, tolerance)
    if scale:
        return "scaled" if scale > 0 else "negative", scale
    if given.is_complex:
        scale = _scale(given.predicted(np.conj(gradient)), measured, tolerance)
        if scale:
            return "conjugate", scale
    scale = _scale(given.predicted(-1j * gradient), measured, tolerance)
    if scale:
        return "times i", scale
    if given.is_complex and not np.imag(gradient).any():
        scale = _scale(predicted[is_real], measured[is_real], tolerance)
        if scale:
            return "real part", scale
    return "wrong", math.nan


def _scale(predicted: Host, measured: Host, tolerance: float) -> float:
    """Return the number that predicted slopes are measured ones times, or 0 if there is none."""
    square = float(measured @ measured)
    scale = float(predicted @ measured) / square if square else 0.0
    return scale if _largest(predicted - scale * measured) <= abs(scale) * tolerance else 0.0


def _largest(slopes: Host) -> float:
    return float(np.max(np.abs(slopes)))


def _reason(given: Evidence, size: float) -> str:
    """Return why the slopes don't tell."""
    worst = max(given.slopes, key=lambda slope: slope.error)
    is_flat = size <= ERRORS * ROUNDING * worst.rounding
    return "stationary" if is_flat else worst.cause
