"""Gradients of a loss by variables: given by the loss itself, or by a tape."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rmsprop.arrays import Array, is_array, namespace
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import described, flatten
from rmsprop.tape import GradientTape, Tape
from rmsprop.variable import Variable, array_of


def compute_gradients(
    loss: Any,
    var_list: Any,
    grad_loss: Array | None = None,
    tape: Tape | None = None,
    jac: bool = False,
    scale: float = 1.0,
) -> list[tuple[Any, Any]]:
    """Return (gradient, variable) pairs; see `rmsprop.RMSprop.minimize`. What tapes give is times `scale`."""
    if not isinstance(jac, bool | np.bool_):
        raise TypeError(f"jac must be True or False; given {jac!r}.")
    needed = ("__enter__", "watch", "gradient") if callable(loss) else ("gradient",)
    if tape is not None and not all(hasattr(tape, name) for name in needed):
        raise TypeError(f"tape must have the methods of rmsprop.tape.Tape; given {tape!r}.")
    if not callable(loss):
        if tape is None:
            raise ValueError(
                f"`tape` is required when a loss is passed as a value. Received: loss={loss!r}, tape=None."
            )
        sources = flatten(var_list() if callable(var_list) else var_list)
        return list(zip(tape.gradient(loss, sources, _scaled(grad_loss, loss, scale)), sources, strict=True))
    if jac and tape is not None:
        raise ValueError("`tape` and `jac=True` exclude each other: a loss that returns gradients needs no tape.")
    var_list = var_list if callable(var_list) else flatten(var_list)
    for position, source in enumerate(() if callable(var_list) else var_list):
        if not isinstance(source, Variable) and not is_array(source):
            raise TypeError(f"Variable {position} {described(source)}: expected an array or a rmsprop.Variable.")
    if jac or (tape is None and not _are_numpy(var_list)):
        return _paired(*_evaluated(loss, var_list, array_of))
    tape = GradientTape() if tape is None else tape
    try:
        with tape:
            value, sources = _evaluated(loss, var_list, tape.watch)
    except Exception as error:
        error.add_note("The loss ran on traced values. If it returns (value, gradients) itself, pass jac=True.")
        raise
    if isinstance(value, tuple):
        return _paired(value, sources)
    return list(zip(tape.gradient(value, sources, _scaled(grad_loss, value, scale)), sources, strict=True))


def _scaled(grad_loss: Any, loss: Any, scale: float) -> Any:
    """Return the weights of the elements of a loss, times a scale."""
    if scale == 1.0:
        return grad_loss
    if grad_loss is None:
        return np.full(np.shape(loss), scale)
    weights = array_of(grad_loss)
    return (weights if is_array(weights) else np.asarray(weights)) * scale


def _are_numpy(var_list: Any) -> bool:
    return callable(var_list) or all(isinstance(array_of(source), np.ndarray) for source in var_list)


def _evaluated(loss: Callable[..., Any], var_list: Any, argument: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    """Return the value of a loss, and the variables in order."""
    if callable(var_list):
        value = loss()
        return value, flatten(var_list())
    sources = var_list
    arguments = [argument(source) for source in sources]
    if all(isinstance(source, Variable) for source in sources) and _accepts(loss, 0):
        return loss(), sources
    if _accepts(loss, len(sources)):
        return loss(*arguments), sources
    value = loss()
    if not isinstance(value, tuple):
        raise TypeError("A loss of plain arrays must take them as arguments, or return (value, gradients).")
    return value, sources


def _accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a compiled function that does not tell
        return True
    return True


def _paired(result: Any, sources: list[Any]) -> list[tuple[Any, Any]]:
    """Pair the gradients that a loss returned with its variables."""
    if not isinstance(result, tuple):
        raise TypeError(
            f"With jac=True, or without a tape for other arrays than NumPy's, the loss must return "
            f"(value, gradients); for variables of {namespace(array_of(sources[0])).__name__} it returned a "
            f"{type(result).__name__}."
        )
    gradients = flatten(result[1]) if len(result) == 2 else None
    if gradients is None or len(gradients) != len(sources):
        raise ValueError(
            f"A loss must return its value, or (value, gradients) with {len(sources)} gradients in the order "
            f"of the variables; it returned a tuple of {len(result)}."
        )
    return [(_untraced(gradient), source) for gradient, source in zip(gradients, sources, strict=True)]


def _untraced(gradient: Any) -> Any:
    from autograd.tracer import getval

    if isinstance(gradient, IndexedSlices):
        return replace(gradient, values=_untraced(gradient.values))
    if isinstance(gradient, np.ndarray) and gradient.dtype == object:
        raise TypeError("the loss returned a gradient of traced values in a plain array; pass jac=True.")
    return getval(gradient)
