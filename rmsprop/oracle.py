"""One step in extended precision, and how far from it a result may be."""

from typing import Any, NamedTuple

import numpy as np

from rmsprop import dtypes
from rmsprop.arrays import to_numpy
from rmsprop.backends import Hyperparameters
from rmsprop.variable import Variable

Host = Any
"""A NumPy array, or None for a slot that does not exist."""

ULPS = 4
"""Errors allowed in a step, in units of the last place of the dtype that it is computed in."""


HALVES = {"float16": (11, 2.0**-24, 65504.0), "bfloat16": (8, 2.0**-133, 3.38e38)}
"""Significant bits, smallest and largest positive number."""


class Snapshot(NamedTuple):
    """A variable and its slots as NumPy arrays; None for slots that do not exist."""

    variable: Host
    rms: Host
    momentum: Host
    mg: Host


def snapshot(optimizer: Any, variable: Any) -> Snapshot:
    """Return copies of a variable and its slots; the optimizer must have been built."""
    slots = [
        optimizer.get_slot(variable, name).numpy() if name in optimizer.get_slot_names() else None
        for name in ("rms", "momentum", "mg")
    ]
    array = variable.array if isinstance(variable, Variable) else variable
    return Snapshot(to_numpy(array), *slots)


def hyper_of(optimizer: Any) -> Hyperparameters:
    """Return the hyperparameters that the next step of an optimizer will use."""
    return optimizer._read(int(optimizer.iterations))  # type: ignore[no-any-return]


def expected_step(
    before: Snapshot, gradient: Host, hyper: Hyperparameters, computing: np.dtype[Any]
) -> tuple[Snapshot, Host, Host]:
    """Return the state after a step, the step without momentum, and how far off that may be besides rounding.

    All arithmetic is in ``numpy.longdouble``. The last is what a computation in the real dtype `computing` can't
    know: see `_doubt`.
    """
    if hyper.complex_as_real and np.iscomplexobj(before.variable):
        return _joined(*(_part_step(before, gradient, hyper, computing, part) for part in (np.real, np.imag)))
    variable, rms, momentum, mg = map(_wide, before)
    g, rho = _wide(gradient), np.longdouble(hyper.rho)
    if hyper.clipvalue is not None:
        modulus = np.abs(g)
        g = g * np.where(modulus > hyper.clipvalue, hyper.clipvalue / np.where(modulus == 0, 1, modulus), 1)
    rms = variance = rho * rms + (1 - rho) * np.abs(g) ** 2
    if mg is not None:
        mg = rho * mg + (1 - rho) * g
        variance = np.maximum(rms - np.abs(mg) ** 2, 0)
    scaled = np.longdouble(hyper.learning_rate) * g
    step = scaled / _divisor(variance, hyper)
    doubt = _doubt(scaled, rms, variance, hyper, computing)
    doubt = np.where(np.maximum(np.abs(g) ** 2, np.abs(scaled)) > np.finfo(computing).max, np.inf, doubt)
    total = step
    if momentum is not None:
        total = momentum = np.longdouble(hyper.momentum or 0.0) * momentum + step
    return Snapshot(variable - total, rms, momentum, mg), step, doubt


def _divisor(variance: Host, hyper: Hyperparameters) -> Host:
    inner, outer = hyper.epsilons
    return np.sqrt(variance + np.longdouble(inner)) + np.longdouble(outer)


def _doubt(scaled: Host, rms: Host, variance: Host, hyper: Hyperparameters, computing: np.dtype[Any]) -> Host:
    """Return how far off a step may be because digits are lost before the division.

    Products lose as much as the smallest number, which matters to tiny ones alone; a centered variance, which may
    be a small difference of large numbers, what these are rounded by.
    """
    smallest = np.longdouble(np.finfo(computing).smallest_subnormal)
    lost = smallest + (2 * _unit(rms, computing) if hyper.centered else 0)
    least = _divisor(np.maximum(variance - ULPS * lost, 0), hyper)
    return np.abs(scaled) * (1 / least - 1 / _divisor(variance, hyper)) + ULPS * smallest / least


def assert_step(
    before: Snapshot, after: Snapshot, gradient: Host, hyper: Hyperparameters, dtype: str | None = None
) -> None:
    """Assert that a step is within `ULPS` of the oracle, for a variable of a dtype (default: as in `before`).

    The unit for ``rms`` and ``mg`` is that of their value, for the variable that of ``max(|var|, |step|)``. Half
    precision variables may be half a unit of their own off on top. Clipping the modulus of complex gradients,
    which rounds a few times more, doubles what is allowed. Digits that are lost in subnormal numbers, or in a
    centered variance, may change the step as far as the formula lets them. Of elements where the square of the
    gradient, or its product with the learning rate, is beyond the dtype, only ``mg`` is looked at.
    """
    name = dtype or dtypes.name_of(before.variable.dtype)
    computing = np.finfo(dtypes.COMPUTE[name]).dtype
    expected, step, doubt = expected_step(before, gradient, hyper, computing)
    slack = 2 if hyper.clipvalue is not None and dtypes.is_complex(name) else 1
    in_range = np.where(np.isinf(doubt), np.inf, 1)
    _assert_close("rms", after.rms, expected.rms, slack * _unit(expected.rms, computing) * in_range)
    if expected.mg is not None:
        largest = np.maximum(np.abs(expected.mg), np.abs(_wide(before.mg)))
        _assert_close("mg", after.mg, expected.mg, _unit(largest, computing))
    unit = slack * (_unit(np.abs(step) + doubt, computing) + doubt / ULPS)
    if expected.momentum is not None:
        unit = unit + _unit(np.abs(_wide(before.momentum)), computing)
        _assert_close("momentum", after.momentum, expected.momentum, unit)
    unit = unit + _unit(np.maximum(np.abs(expected.variable), np.abs(_wide(before.variable))), computing)
    if name in HALVES:
        bits, smallest, largest_half = HALVES[name]
        size = np.abs(expected.variable) + doubt
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


def _part_step(
    before: Snapshot, gradient: Host, hyper: Hyperparameters, computing: np.dtype[Any], part: Any
) -> Any:
    halves = Snapshot(*(None if x is None else part(x) for x in before))
    return expected_step(halves, part(gradient), hyper, computing)


def _joined(real: Any, imag: Any) -> tuple[Snapshot, Host, Host]:
    """Join the results for real and imaginary part."""
    state = Snapshot(*(None if a is None else a + 1j * b for a, b in zip(real[0], imag[0], strict=True)))
    return state, real[1] + 1j * imag[1], real[2] + imag[2]
