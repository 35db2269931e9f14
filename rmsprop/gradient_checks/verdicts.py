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
"""Error of slopes, in parts of that by rounding alone, up to which a gradient of 0 is told from a small one."""


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
    if not np.all(np.isfinite(given.gradient)):
        return Verdict("wrong", reason="not finite", misfit=math.inf)
    measured, predicted = np.array([slope.value for slope in given.slopes]), given.predicted(given.gradient)
    error, misfit = max(slope.error for slope in given.slopes), _largest(predicted - measured)
    size = max(_largest(predicted), _largest(measured))
    if not given.gradient.any():
        word, scale = _of_zeros(given, size, error)
    elif error > TOO_COARSE * size or size == 0:
        word, scale = "unclear", math.nan
    else:
        word, scale = _compared(given, predicted, measured, error)
    reason = _reason(given, size) if word == "unclear" else ""
    if word == "right" and np.iscomplexobj(given.gradient) and not given.is_complex:
        reason = "complex"
    return Verdict(word, scale, reason, *((misfit / size, error / size) if size else (misfit, error)))


def _of_zeros(given: Evidence, size: float, error: float) -> tuple[str, float]:
    """Return the verdict on a gradient that is 0 everywhere, and its scale."""
    if size > ERRORS * error:
        return "zero", 0.0
    is_sure = error <= ROUNDING * max(slope.rounding for slope in given.slopes)
    return ("right", 1.0) if is_sure else ("unclear", math.nan)


def _compared(given: Evidence, predicted: Host, measured: Host, error: float) -> tuple[str, float]:
    """Return the verdict on a gradient if slopes are well known, and its scale."""
    floor = min(20 * given.precision ** (2 / 3), 0.1)
    misfit, size = _largest(predicted - measured), max(_largest(predicted), _largest(measured))
    tolerance = ERRORS * error + floor * size
    if misfit <= tolerance:
        return ("right", 1.0) if tolerance <= TELLING * size else ("unclear", math.nan)
    if any([slope.cause == "kink" and slope.error > KINK * size for slope in given.slopes]):
        return "unclear", math.nan
    tolerance = ERRORS * error + floor * _largest(measured)
    word, scale = _fitting(given, measured, tolerance)
    return (word, scale) if word == "wrong" or tolerance <= CHANCE * misfit else ("unclear", math.nan)


def _fitting(given: Evidence, measured: Host, tolerance: float) -> tuple[str, float]:
    """Return what a gradient that does not agree is of the true one, and its scale."""
    gradient, is_real = given.gradient, np.array([not np.iscomplexobj(way) for way in given.directions])
    scale = _scale(given.predicted(gradient), measured, tolerance)
    if scale:
        return ("scaled" if scale > 0 else "negative"), scale
    candidates = [("times i", -1j * gradient, np.full(len(measured), True))]
    if given.is_complex:
        candidates.insert(0, ("conjugate", np.conj(gradient), np.full(len(measured), True)))
        if not np.imag(gradient).any():
            candidates.append(("real part", gradient, is_real))
    for word, candidate, chosen in candidates:
        scale = _scale(given.predicted(candidate)[chosen], measured[chosen], tolerance)
        if scale:
            return word, scale
    return "wrong", math.nan


def _scale(predicted: Host, measured: Host, tolerance: float) -> float:
    """Return the number by which measured slopes are to be multiplied to be predicted ones, or 0."""
    square = float(measured @ measured)
    scale = float(predicted @ measured) / square if square else 0.0
    return scale if _largest(predicted - scale * measured) <= abs(scale) * tolerance else 0.0


def _largest(slopes: Host) -> float:
    return float(np.max(np.abs(slopes)))


def _reason(given: Evidence, size: float) -> str:
    """Return why slopes don't tell."""
    worst = max(given.slopes, key=lambda slope: slope.error)
    if math.isinf(worst.error):
        return worst.cause
    is_flat = size <= ERRORS * ROUNDING * worst.rounding
    return "stationary" if is_flat else worst.cause
