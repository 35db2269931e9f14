"""A step of one variable as a function of arrays of any library, none of which is changed."""

from typing import Any

from rmsprop.arrays import dtypes
from rmsprop.arrays.elements import clipped, joined, parts
from rmsprop.arrays.libraries import Array, DType, Namespace, namespace
from rmsprop.formula import Hyperparameters, Numbers, VariableState, square, stepped
from rmsprop.formula import averaged as _averaged


def squared_norm(values: Array, hyper: Hyperparameters, scale: float) -> Array:
    """Return the sum of ``|scale * g|**2`` after clipping by value, in the widest precision that there is."""
    xp = namespace(values)
    if hyper.complex_as_real and xp.isdtype(values.dtype, "complex floating"):
        return sum(squared_norm(part, hyper, scale) for part in parts(xp, values))
    values = clipped(xp, xp.astype(values, computing(xp, values)), hyper.clipvalue)
    known = xp.__array_namespace_info__().dtypes(kind="real floating")
    wide = xp.astype(values, _widest(xp, values.dtype, known))
    return xp.sum(square(xp, wide if scale == 1.0 else wide * scale))


def _widest(xp: Namespace, dtype: DType, known: dict[str, Any]) -> Any:
    if xp.isdtype(dtype, "complex floating"):
        return xp.complex128 if "float64" in known else xp.complex64
    return known.get("float64", xp.float32)


def limited(gradient: Array, factor: Array | None, hyper: Hyperparameters) -> Array:
    """Return a gradient in the dtype of the computation, clipped by value and times its factor."""
    xp = namespace(gradient)
    gradient = xp.astype(gradient, computing(xp, gradient))
    is_complex = xp.isdtype(gradient.dtype, "complex floating")
    if is_complex and hyper.complex_as_real:
        real, imag = (clipped(xp, part, hyper.clipvalue) for part in parts(xp, gradient))
        gradient = joined(xp, real, imag, gradient.dtype)
    else:
        gradient = clipped(xp, gradient, hyper.clipvalue)
    if factor is None:
        return gradient
    pair: Array = xp.astype(factor, gradient.dtype)
    return gradient * pair[0] * pair[1]


def updated(state: VariableState, gradient: Array, numbers: Numbers, hyper: Hyperparameters) -> VariableState:
    """Return the state after a step, by a gradient that has been `limited`; the average is that of before.

    Real and imaginary part are taken one after the other if they count as two reals.
    """
    xp, kept = namespace(gradient), state.variable.dtype
    state = state._replace(variable=xp.astype(state.variable, gradient.dtype))
    if hyper.complex_as_real and xp.isdtype(kept, "complex floating"):
        pairs = [VariableState(*half) for half in zip(*(parts(xp, x) for x in state), strict=True)]
        real, imag = (stepped(xp, s, g, numbers) for s, g in zip(pairs, parts(xp, gradient), strict=True))
        return VariableState(*(joined(xp, re, im, kept) for re, im in zip(real, imag, strict=True)))
    new = stepped(xp, state, gradient, numbers)
    return new._replace(variable=xp.astype(new.variable, kept))


def averaged(average: Array, variable: Array, numbers: Numbers) -> Array:
    """Return the average of a variable after a step."""
    return _averaged(average, namespace(variable).astype(variable, average.dtype), numbers)


def computing(xp: Namespace, array: Array) -> Any:
    """Return the dtype of the computation for an array."""
    return getattr(xp, dtypes.COMPUTE[dtypes.name_of(array.dtype)])
