"""One step in extended precision, and how far from it a result may be."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple, cast

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import to_numpy
from rmsprop.formula import Hyperparameters, Numbers, VariableState, averaged, square, stepped
from rmsprop.variables.variable import Variable

Host = Any
"""A NumPy array, or None for a slot that does not exist."""

ULPS = 4
"""Errors allowed in a step, in units of the last place of the dtype that it is computed in."""


HALVES = {"float16": (11, 2.0**-24, 65504.0), "bfloat16": (8, 2.0**-133, 3.38e38)}
"""Significant bits, smallest and largest positive number."""


def snapshot(optimizer: Any, variable: Any) -> VariableState:
    """Return NumPy copies of a variable and of the slots that there are; the optimizer must have been built."""
    slots = [
        optimizer.get_slot(variable, name).numpy() if name in optimizer.get_slot_names() else None
        for name in VariableState._fields[1:]
    ]
    array = variable.array if isinstance(variable, Variable) else variable
    return VariableState(to_numpy(array), *slots)


def hyper_of(optimizer: Any) -> Hyperparameters:
    """Return the hyperparameters that the next step of an optimizer will use."""
    return optimizer._settings.read(int(optimizer.iterations))  # type: ignore[no-any-return]


class Expected(NamedTuple):
    """What a step leads to, and what its errors are to be compared with."""

    state: VariableState
    step: Host
    """What enters the momentum, or without it the variable."""
    condition: Host
    """How much rounding is magnified: ``rms / variance`` if centered, where that is a small difference; else 1."""
    gradient: Host
    """After weight decay."""
    size: Host
    """Of what the gradient is the sum: larger than that, if weight decay cancels most of it."""
    numbers: Numbers


def expected_step(before: VariableState, gradient: Host, hyper: Hyperparameters) -> Expected:
    """Return what a step leads to, by `rmsprop.formula.stepped` in ``numpy.longdouble``."""
    if hyper.complex_as_real and np.iscomplexobj(before.variable):
        return _joined(*(_part_step(before, gradient, hyper, part) for part in (np.real, np.imag)))
    state, g, wide = VariableState(*map(_wide, before)), _wide(gradient), cast("Any", np.longdouble)
    numbers = Numbers(*(cast("Any", x if x is None else wide(x)) for x in hyper.numbers_of()))
    numbers = numbers._replace(one_minus_rho=1 - wide(hyper.rho))  # is rounded else
    if hyper.clipvalue is not None:
        modulus = np.abs(g)
        g = g * np.where(modulus > hyper.clipvalue, hyper.clipvalue / np.where(modulus == 0, 1, modulus), 1)
    after = stepped(np, state, g, numbers)
    decay = 0 * g if numbers.weight_decay is None else numbers.weight_decay * state.variable
    alone = numbers._replace(weight_decay=None, shrinkage=None, outer_rate=None)
    at_zero = state._replace(variable=np.zeros_like(state.variable), momentum=None)
    step = -stepped(np, at_zero, g + decay, alone).variable
    if state.average is not None:
        after = after._replace(average=averaged(state.average, after.variable, numbers))
    return Expected(after, step, _condition(after, numbers), g + decay, np.abs(g) + np.abs(decay), numbers)


def _condition(state: VariableState, numbers: Numbers) -> Host:
    """Return how many times as large as the variance the average of squares is."""
    if state.mg is None:
        return np.ones_like(state.rms)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = state.mg if numbers.mg_scale is None else numbers.mg_scale * state.mg
        variance = np.maximum(state.rms - square(np, mean), 0)
        return np.where(state.rms > 0, state.rms / variance, 1)


def assert_step(
    before: VariableState, after: VariableState, gradient: Host, hyper: Hyperparameters, dtype: str | None = None
) -> None:
    """Assert that a step is within `ULPS` of the oracle, for a variable of a dtype (default: as in `before`).

    The unit for ``rms`` and ``mg`` is that of their value, for the variable that of ``max(|var|, |step|)``, and
    where weight decay cancels a gradient, that of what is cancelled. Half precision variables may be half a unit
    of their own off on top. Clipping the modulus of complex gradients, which rounds a few times more, doubles what
    is allowed.
    """
    expected = expected_step(before, gradient, hyper)
    state, numbers = expected.state, expected.numbers
    name = dtype or dtypes.name_of(before.variable.dtype)
    computing = np.finfo(dtypes.COMPUTE[name]).dtype
    slack = 2 if hyper.clipvalue is not None and dtypes.is_complex(name) else 1
    lost = _unit(expected.size, computing) if numbers.weight_decay is not None else 0 * expected.size
    unit = slack * _unit(state.rms, computing) + 2 * numbers.one_minus_rho * np.abs(expected.gradient) * lost
    _assert_close("rms", after.rms, state.rms, unit)
    if state.mg is not None:
        largest = np.maximum(np.abs(state.mg), np.abs(_wide(before.mg)))
        _assert_close("mg", after.mg, state.mg, _unit(largest, computing) + numbers.one_minus_rho * lost)
    size = np.abs(expected.gradient)
    magnified = np.where(lost > 0, lost / np.where(size > 0, size, 1), 0)
    unit = np.abs(expected.step) * magnified + slack * _unit(np.abs(expected.step), computing)
    unit = unit * np.maximum(expected.condition, 1)
    if state.momentum is not None:
        of_step, unit = unit, unit + _unit(np.abs(_wide(before.momentum)), computing)
        _assert_close("momentum", after.momentum, state.momentum, unit)
        unit = unit if numbers.nesterov_mu is None else of_step + _times(2 * numbers.nesterov_mu, unit)
    unit = unit if numbers.outer_rate is None else _times(numbers.outer_rate, unit)
    unit = unit + _unit(np.maximum(np.abs(state.variable), np.abs(_wide(before.variable))), computing)
    if name in HALVES:
        bits, smallest, largest_half = HALVES[name]
        size = np.abs(state.variable)
        unit = unit + np.maximum(size * 2.0**-bits, smallest / 2) / ULPS
        unit = np.where(size > largest_half, np.inf, unit)
    _assert_close("variable", after.variable, state.variable, unit)
    if state.average is not None and numbers.one_minus_ema is not None:
        largest = np.maximum(np.abs(state.average), np.abs(_wide(before.average)))
        unit = _times(numbers.one_minus_ema, unit) + _unit(largest, computing)
        _assert_close("average", after.average, state.average, unit)


def _assert_close(what: str, got: Any, expected: Any, unit: Host) -> None:
    with np.errstate(invalid="ignore"):
        difference = np.abs(_wide(got) - expected)
    off = ~(difference <= ULPS * unit) & np.isfinite(unit) & (_wide(got) != expected)
    assert not off.any(), (
        f"{what} is off by {np.max(difference[off] / unit[off]):.1f} units in {off.sum()} elements: "
        f"{np.asarray(got)[off][:3]} instead of {np.asarray(expected)[off][:3]}"
    )


def _times(factor: float, unit: Host) -> Host:
    """Return a unit times a factor; one that is infinite, as nothing is known, stays so, also times 0."""
    known = np.isfinite(unit)
    return np.where(known, factor * np.where(known, unit, 1), unit)


def _unit(size: Any, computing: np.dtype[Any]) -> Host:
    """Return the spacing of numbers of this size, in the real dtype of the computation."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.spacing(np.abs(size).astype(computing)), np.longdouble)


def _wide(x: Host) -> Host:
    if x is None:
        return None
    x = np.asarray(x)
    return x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)


def _part_step(before: VariableState, gradient: Host, hyper: Hyperparameters, part: Any) -> Expected:
    halves = VariableState(*(None if x is None else part(x) for x in before))
    return expected_step(halves, part(gradient), hyper)


def _joined(real: Expected, imag: Expected) -> Expected:
    """Join the results for real and imaginary part; the larger condition is that of the pair."""
    pairs: Any = zip(real.state, imag.state, strict=True)
    state = VariableState(*(None if a is None else a + 1j * b for a, b in pairs))
    return Expected(
        state,
        real.step + 1j * imag.step,
        np.maximum(real.condition, imag.condition),
        real.gradient + 1j * imag.gradient,
        np.maximum(real.size, imag.size),
        real.numbers,
    )


def expected_clipping(gradients: Sequence[Host], hyper: Hyperparameters) -> list[list[Fraction]]:
    """Return gradients as they are after clipping and division by the loss scale, exactly.

    Each is a list of its elements in C order: of complex ones the real and the imaginary part. Roots have
    a relative error of 2**-200.
    """
    clipped = [_clipped_values(gradient, hyper) for gradient in gradients]
    if hyper.clipnorm is not None:
        clipped = [_shortened(numbers, Fraction(hyper.clipnorm)) for numbers in clipped]
    if hyper.global_clipnorm is not None:
        together = iter(_shortened([x for numbers in clipped for x in numbers], Fraction(hyper.global_clipnorm)))
        clipped = [[next(together) for _ in numbers] for numbers in clipped]
    return [[x / Fraction(hyper.loss_scale) for x in numbers] for numbers in clipped]


def exact_norm(numbers: Sequence[Fraction]) -> Fraction:
    """Return the root of the sum of squares, with a relative error of 2**-200."""
    square = sum((x * x for x in numbers), Fraction(0))
    bits = 400 + max(0, square.denominator.bit_length() - square.numerator.bit_length())
    return Fraction(math.isqrt((square.numerator << 2 * bits) // square.denominator), 1 << bits)


def _clipped_values(gradient: Host, hyper: Hyperparameters) -> list[Fraction]:
    flat = np.ravel(gradient)
    pairs = [(x.real, x.imag) if np.iscomplexobj(flat) else (x,) for x in flat]
    elements = [[Fraction(float(part)) for part in pair] for pair in pairs]
    if hyper.complex_as_real:
        elements = [[part] for pair in elements for part in pair]
    if hyper.clipvalue is not None:
        elements = [_shortened(element, Fraction(hyper.clipvalue)) for element in elements]
    return [part for element in elements for part in element]


def _shortened(numbers: list[Fraction], limit: Fraction) -> list[Fraction]:
    norm = exact_norm(numbers)
    return numbers if norm <= limit else [x * limit / norm for x in numbers]
