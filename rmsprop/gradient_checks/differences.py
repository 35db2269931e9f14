"""Slopes of functions of one number, by central differences and extrapolation, with their error.

Differences for shorter and shorter steps go into Ridders' table (C. J. F. Ridders, "Accurate computation of F'(x)
and F'(x) F''(x)", Advances in Engineering Software 4, 1982), whose neighbours tell the error of extrapolation. Two
more errors are added: noise, of rounding or of the function itself, and half the change of the slope at a kink,
where central differences see the mean of both sides.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

STEPS = 7
"""How many steps are tried, with two evaluations each."""

RATIO = 1.9
"""Ratio of a step to the next one. With 2, values that were rounded can look as if they were not."""

FEWEST = 4
"""How many steps with finite values it takes to tell an error."""

CLEAR = 0.01
"""Error of a slope, in parts of it, beyond which other steps are tried, too."""

COARSER, FINER = 16.0, 1 / 64
"""Factors of the steps that are tried then: where noise hides the slope, and where it is not yet constant."""

SINGLE = 1e-8
"""Precision of a loss beyond which longer steps would be as long as the array itself."""


class Slope(NamedTuple):
    """A slope and its error.

    Attributes
    ----------
    value, error : float
    rounding : float
        The part of the error that rounding alone would make.
    cause : str
        Where most of the error comes from: "noise", "curvature", "kink", or "not finite".
    """

    value: float
    error: float
    rounding: float
    cause: str


class Samples(NamedTuple):
    """Values of a function at 0, and ahead and behind of it by some steps, the longest of which is the first."""

    here: float
    steps: list[float]
    ahead: list[float]
    behind: list[float]

    @property
    def is_constant(self) -> bool:
        """Tell whether all values are the same."""
        return {*self.ahead, *self.behind} == {self.here}


def first_step(largest: float, precision: float) -> float:
    """Return the longest step for an array, from its largest absolute value and the precision of the loss.

    It is a power of 2, by which directions are multiplied without rounding.
    """
    size = largest if 0 < largest < math.inf else 1.0
    return math.ldexp(1.0, round(math.log2(2 * precision**0.25 * size)))


def slope(values: Callable[[float], float], here: float, step: float, precision: float) -> Slope:
    """Return the slope of a function at 0, where its value is `here`.

    Where the steps don't suit the function, longer or shorter ones are tried, too. Steps to values that are not
    finite count as too long.

    Parameters
    ----------
    values : callable
        The function.
    here : float
    step : float
        The longest step.
    precision : float
        Relative error of the function's values by rounding: the epsilon of their dtype.
    """
    samples = taken(values, here, step, STEPS)
    found = extrapolated(samples, precision)
    if found.error <= CLEAR * abs(found.value):
        return found
    if samples.is_constant:  # if not for want of resolution, it is so up to steps as long as the array itself
        others = taken(values, here, step / precision**0.25, STEPS)
        return found if others.is_constant else extrapolated(others, precision)
    factor = COARSER if found.cause == "noise" and precision < SINGLE else FINER
    others = taken(values, here, step * factor, STEPS)
    other = extrapolated(others, precision)
    return other if other.error < found.error and not others.is_constant else found


def taken(values: Callable[[float], float], here: float, step: float, count: int) -> Samples:
    """Return the values of a function for so many steps."""
    steps = [step / RATIO**k for k in range(count)]
    return Samples(here, steps, [values(each) for each in steps], [values(-each) for each in steps])


def extrapolated(samples: Samples, precision: float) -> Slope:
    """Return the entry of Ridders' table with the smallest error."""
    here, steps, ahead, behind = samples = _finite(samples)
    if len(steps) < FEWEST:
        return Slope(0.0, math.inf, 0.0, "not finite")
    table = ridders([(a - b) / (2 * step) for a, b, step in zip(ahead, behind, steps, strict=True)])
    bends = [(a - here) + (b - here) for a, b in zip(ahead, behind, strict=True)]
    rounding = 4 * precision * max(map(abs, (here, *ahead, *behind)))
    noise = max(rounding, _scatter(table, steps), 2 * _quantum(samples))
    best = Slope(table[-1][0], math.inf, rounding / steps[-1], "noise")
    for i in range(1, len(table)):
        kink = abs(RATIO**2 * bends[i] - bends[i - 1]) / (2 * (RATIO - 1) * steps[i - 1])
        for j in range(1, i + 1):
            neighbours = table[i][j - 1], table[i - 1][j - 1]
            parts = {
                "curvature": max(abs(table[i][j] - each) for each in neighbours),
                "noise": noise / steps[i],
                "kink": kink,
            }
            if sum(parts.values()) < best.error:
                cause = max(parts, key=lambda name: parts[name])
                best = Slope(table[i][j], sum(parts.values()), best.rounding, cause)
    return best


def ridders(slopes: list[float]) -> list[list[float]]:
    """Return the table of extrapolations of slopes, each of which is for a shorter step than the one before.

    The entry j of a row is free of the error by all powers of the step up to 2 j.
    """
    table: list[list[float]] = []
    for first in slopes:
        row = [first]
        for j, above in enumerate(table[-1] if table else [], 1):
            row.append(row[-1] + (row[-1] - above) / (RATIO ** (2 * j) - 1))
        table.append(row)
    return table


def _finite(samples: Samples) -> Samples:
    """Return the samples from the step on after which all are finite."""
    here, *columns = samples
    start = 0
    for k, row in enumerate(zip(*columns, strict=True), 1):
        if not all(map(math.isfinite, (here, *row))):
            start = k
    return Samples(here, *(column[start:] for column in columns))


def _scatter(table: list[list[float]], steps: list[float]) -> float:
    """Return the noise of the function's values: how the table scatters where no power of the step is left."""
    column = [(row[2], step) for row, step in zip(table, steps, strict=True) if len(row) > 2]
    return math.hypot(*(abs(a - b) * step for (a, _), (b, step) in pairwise(column))) / 2


def _quantum(samples: Samples) -> float:
    """Return the distance of values of a function that has few of them, as if they were rounded; else 0.

    It is the smallest difference, if all others are multiples of it.
    """
    values = sorted({samples.here, *samples.ahead, *samples.behind})
    smallest = min([b - a for a, b in pairwise(values)], default=0.0)
    counts = [(value - values[0]) / smallest for value in values[1:]]
    return smallest if all(abs(count - round(count)) < 1e-3 for count in counts) else 0.0
