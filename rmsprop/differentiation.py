"""Gradients of a loss by variables: given by the loss itself, or by a tape."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rmsprop.arrays import Array
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import flatten
from rmsprop.tape import GradientTape
from rmsprop.variable import Variable


def compute_gradients(
    loss: Any, var_list: Any, grad_loss: Array | None = None, tape: Any = None
) -> list[tuple[Any, Any]]:
    """Return (gradient, variable) pairs; see `rmsprop.RMSprop.minimize`.

    A loss is called once, on traced values. Only if that fails, it is called on plain values, which serves
    code that can't be traced but returns its own gradients.
    """
    if not callable(loss):
        if tape is None:
            raise ValueError(
                f"`tape` is required when a loss is passed as a value. Received: loss={loss!r}, tape=None."
            )
        sources = flatten(var_list() if callable(var_list) else var_list)
        return list(zip(tape.gradient(loss, sources, grad_loss), sources, strict=True))
    traced = GradientTape()
    try:
        with traced:
            value, sources = _evaluate(loss, var_list, traced.watch)
    except Exception as error:
        return _given_by_loss(loss, var_list, error)
    if isinstance(value, tuple):
        return _paired(value, sources)
    return list(zip(traced.gradient(value, sources, grad_loss), sources, strict=True))


def _given_by_loss(loss: Callable[..., Any], var_list: Any, error: Exception) -> list[tuple[Any, Any]]:
    """Call a loss that can't be traced, for the gradients that it returns itself."""
    value, sources = _evaluate(loss, var_list, _plain)
    if isinstance(value, tuple):
        return _paired(value, sources)
    error.add_note("A loss that can't be differentiated by autograd may return (value, gradients) instead.")
    raise error


def _evaluate(loss: Callable[..., Any], var_list: Any, argument: Callable[[Any], Any]) -> tuple[Any, list[Any]]:
    """Return the value of a loss, and the variables in order."""
    if callable(var_list):
        value = loss()
        return value, flatten(var_list())
    sources = flatten(var_list)
    arguments = [argument(source) for source in sources]
    takes_none = all(isinstance(source, Variable) for source in sources) or not _accepts(loss, len(sources))
    return (loss() if takes_none else loss(*arguments)), sources


def _accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a compiled function that does not tell
        return True
    return True


def _plain(source: Any) -> Any:
    return source.array if isinstance(source, Variable) else source


def _paired(result: tuple[Any, ...], sources: list[Any]) -> list[tuple[Any, Any]]:
    """Pair the gradients that a loss returned with its variables."""
    gradients = flatten(result[1]) if len(result) == 2 else None
    if gradients is None or len(gradients) != len(sources):
        raise ValueError(
            f"A loss must return its value, or (value, gradients) with {len(sources)} gradients in the order of "
            f"the variables; it returned a tuple of {len(result)}."
        )
    return [(_untraced(gradient), source) for gradient, source in zip(gradients, sources, strict=True)]


def _untraced(gradient: Any) -> Any:
    from autograd.tracer import getval

    if isinstance(gradient, IndexedSlices):
        return replace(gradient, values=getval(gradient.values))
    return getval(gradient)
