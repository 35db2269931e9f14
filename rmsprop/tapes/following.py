"""Functions of NumPy over traced values, by the forms of them that autograd can follow."""

from types import ModuleType
from typing import Any

import autograd.numpy
import numpy as np
from autograd import tracer
from autograd.core import VJPNode, primitive_vjps
from autograd.tracer import isbox, notrace_primitives

from rmsprop.tapes.gathering import reading_of
from rmsprop.variables.operators import value_of

anp: Any = autograd.numpy  # whose names are made when it is imported

CLOSED = -2
"""Number of no trace: below all of autograd's, which takes a value that has it for a constant."""


def is_open(x: Any) -> bool:
    """Tell whether something is a traced value of a block that is open."""
    return bool(isbox(x) and x._trace != CLOSED)


def has_open(arguments: Any) -> bool:
    """Tell whether there is one among nested arguments."""
    if isinstance(arguments, dict):
        arguments = arguments.values()
    elif not isinstance(arguments, list | tuple):
        return is_open(arguments)
    return any([has_open(each) for each in arguments])


def settled(arguments: Any) -> Any:
    """Replace values of closed blocks in nested arguments by their numbers, and variables by their values."""
    if type(arguments) is dict:
        return {key: settled(each) for key, each in arguments.items()}
    if type(arguments) in (list, tuple):
        return type(arguments)([settled(each) for each in arguments])
    arguments = value_of(arguments)
    return arguments._value if isbox(arguments) and arguments._trace == CLOSED else arguments


def _form_of(function: Any) -> Any:
    """Return the form of a function of NumPy's that autograd can follow; None where there is none."""
    if function is np.select:
        return _select
    if isinstance(function, np.ufunc):  # also one of scipy.special, if autograd.scipy is in use
        form = getattr(anp, function.__name__, None)
        known = getattr(tracer, "trace_primitives_map", {})  # since autograd 1.9
        return form if getattr(form, "fun", None) is function else known.get(function)
    form = getattr(_HOMES.get(function.__module__), function.__name__, None)
    return None if form is function else form


_HOMES: dict[str, ModuleType] = {"numpy": anp, "numpy.linalg": anp.linalg, "numpy.fft": anp.fft}


def applied(function: Any, args: Any, kwargs: Any) -> Any:
    """Return what a function of NumPy's gives for traced arguments; ``TypeError`` if it can't be followed."""
    form = _form_of(function)
    if form is not None and (_is_composed(form) or (_has_gradient(form) and any([is_open(x) for x in args]))):
        return form(*args, **kwargs)
    try:  # over arrays of objects, whose elements are followed
        return function._implementation(*args, **kwargs)
    except Exception as error:
        raise TypeError(unknown(function)) from error


def _is_composed(form: Any) -> bool:
    """Tell whether a function consists of primitives."""
    return not hasattr(form, "fun")


def _has_gradient(form: Any) -> bool:
    return form in primitive_vjps or form in notrace_primitives[VJPNode] or reading_of(form) is not None


def unknown(function: Any) -> str:
    """Return the message for a function that can't be followed."""
    name = getattr(function, "__name__", function)
    return (
        f"GradientTape can't follow `{name}` here, for lack of a gradient in autograd: write it with other "
        f"functions of autograd.numpy, use a TorchTape, or return (value, gradients) from the loss."
    )


def _select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Do as `numpy.select`, which autograd's form of it would call with objects."""
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = anp.where(condition, choice, result)
    return result
