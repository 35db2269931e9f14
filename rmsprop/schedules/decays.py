"""The schedules of ``tf.keras.optimizers.schedules``."""

import math
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rmsprop.schedules.arguments import CHECKS, check_non_negative, check_positive
from rmsprop.schedules.base import BuiltInSchedule, built_in

LARGEST = sys.float_info.max


@built_in
@dataclass(frozen=True)
class ExponentialDecay(BuiltInSchedule):
    """Multiply the rate by `decay_rate` every `decay_steps` steps.

    ``initial_learning_rate * decay_rate**p`` with ``p = step / decay_steps``, as in Keras.

    Parameters
    ----------
    initial_learning_rate : float
        Rate at step 0.
    decay_steps : float
        Steps per factor of `decay_rate`, above 0.
    decay_rate : float
        Factor, usually in (0, 1). The rate overflows to inf, and is NaN where the power is not real.
    staircase : bool, default False
        Round ``p`` down, so that the rate falls in stairs.
    name : str, optional
        A label; it changes no value.

    Raises
    ------
    TypeError, ValueError
        If an argument is no finite number, or out of its range.

    Examples
    --------
    >>> ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(10)
    0.05
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str | None = None

    def _rate(self, step: float) -> float:
        p = _quotient(step, self.decay_steps)
        return self.initial_learning_rate * _power(self.decay_rate, math.floor(p) if self.staircase else p)


@built_in
@dataclass(frozen=True)
class PiecewiseConstantDecay(BuiltInSchedule):
    """Keep the rate constant between boundaries.

    ``values[0]`` up to and including step ``boundaries[0]``, then ``values[1]`` up to and including
    ``boundaries[1]``, and so on; ``values[-1]`` after the last boundary, as in Keras.

    Parameters
    ----------
    boundaries : sequence of float
        Last step of each value but the last, strictly increasing.
    values : sequence of float
        Rates, one more than there are boundaries.
    name : str, optional
        A label; it changes no value.

    Raises
    ------
    TypeError, ValueError
        If an entry is no finite number, `boundaries` do not increase, or the lengths do not fit.

    Examples
    --------
    >>> schedule = PiecewiseConstantDecay([2, 5], [0.1, 0.2, 0.3])
    >>> [schedule(step) for step in (0, 2, 3, 5, 6)]
    [0.1, 0.1, 0.2, 0.2, 0.3]
    """

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values must be one longer than boundaries, got {len(self.values)} values "
                f"for {len(self.boundaries)} boundaries"
            )

    def _rate(self, step: float) -> float:
        return float(self.values[bisect_left(self.boundaries, step)])


@built_in
@dataclass(frozen=True)
class PolynomialDecay(BuiltInSchedule):
    """Go from `initial_learning_rate` to `end_learning_rate` in `decay_steps` steps.

    ``(initial_learning_rate - end_learning_rate) * (1 - s / d)**power + end_learning_rate`` with
    ``d = decay_steps`` and ``s = min(step, d)``. With `cycle`, ``s = step`` and ``d`` is the first multiple
    of `decay_steps` that is not below it (step 0 counts to the first cycle), as in Keras.

    Parameters
    ----------
    initial_learning_rate : float
        Rate at step 0.
    decay_steps : float
        Steps until the end, or of the first cycle, above 0.
    end_learning_rate : float, default 0.0001
        Rate at the end.
    power : float, default 1.0
        Exponent; 1 is a straight line.
    cycle : bool, default False
        Go up again after each end, to a lower peak every time.
    name : str, optional
        A label; it changes no value.

    Raises
    ------
    TypeError, ValueError
        If an argument is no finite number, or out of its range.

    Examples
    --------
    >>> PolynomialDecay(0.1, decay_steps=10, end_learning_rate=0.01, power=2)(5)
    0.0325
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str | None = None

    def _rate(self, step: float) -> float:
        p = _quotient(step, self.decay_steps)
        p = p / max(1, math.ceil(p)) if self.cycle else min(p, 1.0)
        scale = _power(1.0 - p, self.power)
        return (self.initial_learning_rate - self.end_learning_rate) * scale + self.end_learning_rate


@built_in
@dataclass(frozen=True)
class InverseTimeDecay(BuiltInSchedule):
    """Divide the rate by a number that grows linearly with the step.

    ``initial_learning_rate / (1 + decay_rate * p)`` with ``p = step / decay_steps``, as in Keras.

    Parameters
    ----------
    initial_learning_rate : float
        Rate at step 0.
    decay_steps : float
        Steps per growth of `decay_rate`, above 0.
    decay_rate : float
        Growth of the divisor. Where a negative one makes the divisor 0, the rate is infinite.
    staircase : bool, default False
        Round ``p`` down, so that the rate falls in stairs.
    name : str, optional
        A label; it changes no value.

    Raises
    ------
    TypeError, ValueError
        If an argument is no finite number, or out of its range.

    Examples
    --------
    >>> InverseTimeDecay(0.1, decay_steps=10, decay_rate=0.5)(20)
    0.05
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str | None = None

    def _rate(self, step: float) -> float:
        p = _quotient(step, self.decay_steps)
        divisor = 1.0 + self.decay_rate * (math.floor(p) if self.staircase else p)
        rate = self.initial_learning_rate
        return rate / divisor if divisor else math.copysign(math.inf, rate)


@built_in
@dataclass(frozen=True)
class CosineDecay(BuiltInSchedule):
    """Follow half a cosine wave down to a fraction `alpha` of the peak, after an optional warm-up.

    ``peak * ((1 - alpha) * (1 + cos(pi * s / decay_steps)) / 2 + alpha)`` with ``s = min(step, decay_steps)``
    and ``peak = initial_learning_rate`` (Loshchilov & Hutter, arXiv:1608.03983, without restarts). With a
    warm-up, the rate first goes linearly from `initial_learning_rate` to ``peak = warmup_target`` (Goyal et
    al., arXiv:1706.02677), and ``s`` counts from its end, as in Keras. A warm-up alone has 0 `decay_steps`, and
    ``alpha * warmup_target`` from its end on.

    Parameters
    ----------
    initial_learning_rate : float
        Rate at step 0.
    decay_steps : float
        Steps of the decay, not counting the warm-up; above 0, or 0 after a warm-up.
    alpha : float, default 0.0
        Rate at the end, as a fraction of the peak.
    name : str, optional
        A label; it changes no value.
    warmup_target : float, optional
        Rate after the warm-up; None means no warm-up, whatever `warmup_steps`.
    warmup_steps : float, default 0
        Steps of the warm-up, not negative; 0 starts at `warmup_target`.

    Raises
    ------
    TypeError, ValueError
        If an argument is no finite number, or out of its range.

    Examples
    --------
    >>> schedule = CosineDecay(0.0, decay_steps=10, alpha=0.1, warmup_target=0.5, warmup_steps=5)
    >>> [round(schedule(step), 8) for step in (0, 3, 5, 10, 15, 31)]
    [0.0, 0.3, 0.5, 0.275, 0.05, 0.05]
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str | None = None
    warmup_target: float | None = None
    warmup_steps: float = 0

    _checks: ClassVar = {**CHECKS, "decay_steps": check_non_negative}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_target is None:
            check_positive("decay_steps", self.decay_steps)

    def _rate(self, step: float) -> float:
        peak = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return peak + (self.warmup_target - peak) * step / self.warmup_steps
            step, peak = step - self.warmup_steps, self.warmup_target
        part = min(_quotient(step, self.decay_steps), 1.0) if self.decay_steps else 1.0
        return peak * _cosine(part, 1.0, self.alpha)


@built_in
@dataclass(frozen=True)
class CosineDecayRestarts(BuiltInSchedule):
    """Follow half a cosine wave down, jump up, and begin again (SGDR).

    ``initial_learning_rate * ((1 - alpha) * m_mul**i * (1 + cos(pi * f)) / 2 + alpha)`` in cycle ``i``, of
    which the fraction ``f`` is done. Cycle ``i`` takes ``first_decay_steps * t_mul**i`` steps (Loshchilov &
    Hutter, arXiv:1608.03983), as in Keras.

    Parameters
    ----------
    initial_learning_rate : float
        Rate at step 0.
    first_decay_steps : float
        Steps of the first cycle, above 0.
    t_mul : float, default 2.0
        Length of a cycle over that of the one before, above 0. Below 1 all cycles together end at
        ``first_decay_steps / (1 - t_mul)``; from there the rate is ``alpha * initial_learning_rate``.
    m_mul : float, default 1.0
        Height of a cycle over that of the one before.
    alpha : float, default 0.0
        Lowest rate, as a fraction of `initial_learning_rate`.
    name : str, optional
        A label; it changes no value.

    Raises
    ------
    TypeError, ValueError
        If an argument is no finite number, or out of its range.

    Examples
    --------
    >>> schedule = CosineDecayRestarts(0.1, first_decay_steps=10, t_mul=2, m_mul=0.5, alpha=0.1)
    >>> [round(schedule(step), 8) for step in (0, 5, 10, 31)]
    [0.1, 0.055, 0.055, 0.03246532]
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str | None = None

    def _rate(self, step: float) -> float:
        done, growth = _quotient(step, self.first_decay_steps), self.t_mul - 1.0
        scale = math.log(self.t_mul)
        if growth:
            if done * growth <= -1.0:  # after the end of all cycles, or before the first of cycles that grow
                return self.initial_learning_rate * self.alpha if done > 0 else math.nan
            done = math.log1p(min(done * growth, LARGEST)) / scale
        # `done` now counts in cycles. At a restart, rounding may leave it just below the whole number; the
        # cosine then sees a `part` just below 0, where it is 1.
        cycle = math.floor(done + 1e-9)
        part = done - cycle
        if growth:
            part = math.expm1(part * scale) / growth
        return self.initial_learning_rate * _cosine(part, _power(self.m_mul, cycle), self.alpha)


def _quotient(step: float, length: float) -> float:
    """Return `step` / `length`, which is finite, so that it can be rounded to an integer."""
    return min(max(step / length, -LARGEST), LARGEST)


def _power(base: float, exponent: float) -> float:
    """Return `base` ** `exponent` as IEEE 754 has it: inf or NaN where Python raises or turns complex."""
    try:
        return math.pow(base, exponent)
    except (OverflowError, ValueError):
        if base < 0 and exponent % 1:
            return math.nan
        return -math.inf if base < 0 and exponent % 2 else math.inf


def _cosine(part: float, height: float, alpha: float) -> float:
    """Return the factor after `part` of a half wave that falls from `height` to `alpha`."""
    return (1.0 - alpha) * height * 0.5 * (1.0 + math.cos(math.pi * part)) + alpha
