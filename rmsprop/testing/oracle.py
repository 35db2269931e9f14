"""One step in extended precision, and how far from it a result may be."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import to_numpy
from rmsprop.formula import SLOTS, Hyperparameters, Numbers, VariableState, square, stepped
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
        for name in SLOTS
    ]
    array = variable.array if isinstance(variable, Variable) else variable
    return VariableState(to_numpy(array), *slots)


def hyper_of(optimizer: Any) -> Hyperparameters:
    """Return the hyperparameters that the next step of an optimizer will use."""
    return optimizer._settings.read(int(optimizer.iterations))  # type: ignore[no-any-return]


def expected_step(
    before: VariableState, gradient: Host, hyper: Hyperparameters
) -> tuple[VariableState, Host, Host]:
    """Return the state after a step, the step without momentum, and how much that magnifies rounding.

    It is that of `rmsprop.formula.stepped`, in ``numpy.longdouble``. The last is ``rms / variance`` when centered,
    where the variance is a small difference of large numbers; else 1.
    """
    if hyper.complex_as_real and np.iscomplexobj(before.variable):
        return _joined(*(_part_step(before, gradient, hyper, part) for part in (np.real, np.imag)))
    state, g, wide = VariableState(*map(_wide, before)), _wide(gradient), cast("Any", np.longdouble)
    numbers = Numbers(*map(wide, hyper.numbers))._replace(one_minus_rho=1 - wide(hyper.rho))  # is rounded else
    if hyper.clipvalue is not None:
        modulus = np.abs(g)
        g = g * np.where(modulus > hyper.clipvalue, hyper.clipvalue / np.where(modulus == 0, 1, modulus), 1)
    after = stepped(np, state, g, numbers)
    from_zero = stepped(np, state._replace(variable=np.zeros_like(state.variable), momentum=None), g, numbers)
    return after, -from_zero.variable, _condition(after)


def _condition(state: VariableState) -> Host:
    """Return how many times as large as the variance the average of squares is."""
    if state.mg is None:
        return np.ones_like(state.rms)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.maximum(state.rms - square(np, state.mg), 0)
        return np.where(state.rms > 0, state.rms / variance, 1)


def assert_step(
    before: VariableState, after: VariableState, gradient: Host, hyper: Hyperparameters, dtype: str | None = None
) -> None:
    """Assert that a step is within `ULPS` of the oracle, for a variable of a dtype (default: as in `before`).

    The unit for ``rms`` and ``mg`` is that of their value, for the variable that of ``max(|var|, |step|)``. Half
    precision variables may be half a unit of their own off on top. Clipping the modulus of complex gradients,
    which rounds a few times more, doubles what is allowed.
    """
    expected, step, condition = expected_step(before, gradient, hyper)
    name = dtype or dtypes.name_of(before.variable.dtype)
    computing = np.finfo(dtypes.COMPUTE[name]).dtype
    slack = 2 if hyper.clipvalue is not None and dtypes.is_complex(name) else 1
    _assert_close("rms", after.rms, expected.rms, slack * _unit(expected.rms, computing))
    if expected.mg is not None:
        largest = np.maximum(np.abs(expected.mg), np.abs(_wide(before.mg)))
        _assert_close("mg", after.mg, expected.mg, _unit(largest, computing))
    unit = slack * _unit(np.abs(step), computing) * np.maximum(condition, 1)
    if expected.momentum is not None:
        unit = unit + _unit(np.abs(_wide(before.momentum)), computing)
        _assert_close("momentum", after.momentum, expected.momentum, unit)
    unit = unit + _unit(np.maximum(np.abs(expected.variable), np.abs(_wide(before.variable))), computing)
    if name in HALVES:
        bits, smallest, largest_half = HALVES[name]
        size = np.abs(expected.variable)
        unit = unit + np.maximum(size * 2.0**-bits, smallest / 2) / ULPS
        unit = np.where(size > largest_half, np.inf, unit)
    _assert_close("variable", after.variable, expected.variable, unit)


def _assert_close(what: str, got: Any, expected: Any, unit: Host) -> None:
    with np.errstate(invalid="ignore"):
        difference = np.abs(_wide(got) - expected)
    off = ~(difference <= ULPS * unit) & np.isfinite(unit) & (_wide(got) != expected)
    assert not off.any(), (
        f"{what} is off by {np.max(difference[off] / unit[off]):.1f} units in {off.sum()} elements: "
        f"{np.asarray(got)[off][:3]} instead of {np.asarray(expected)[off][:3]}"
    )


def _unit(size: Any, computing: np.dtype[Any]) -> Host:
    """Return the spacing of numbers of this size, in the real dtype of the computation."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.spacing(np.abs(size).astype(computing)), np.longdouble)


def _wide(x: Host) -> Host:
    if x is None:
        return None
    x = np.asarray(x)
    return x.astype(np.clongdouble if x.dtype.kind == "c" else np.longdouble)


def _part_step(before: VariableState, gradient: Host, hyper: Hyperparameters, part: Any) -> Any:
    halves = VariableState(*(None if x is None else part(x) for x in before))
    return expected_step(halves, part(gradient), hyper)


def _joined(real: Any, imag: Any) -> tuple[VariableState, Host, Host]:
    """Join the results for real and imaginary part; the larger condition is that of the pair."""
    state = VariableState(*(None if a is None else a + 1j * b for a, b in zip(real[0], imag[0], strict=True)))
    return state, real[1] + 1j * imag[1], np.maximum(real[2], imag[2])


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
