"""Gradients of a loss by variables: given by the loss itself, or by a tape."""

import inspect
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import FunctionType
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import Array, detached, is_array, namespace
from rmsprop.backends import SPARSE
from rmsprop.tapes.autograd_tape import GradientTape
from rmsprop.tapes.tape import Tape
from rmsprop.tapes.torch_tape import TorchTape
from rmsprop.variables.nested import Tree, flatten, is_tree, mapped, matched, outline
from rmsprop.variables.variable import Variable, array_of, described


def compute_gradients(
    loss: Any,
    var_list: Tree,
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
        raise TypeError(f"tape must have the methods of rmsprop.tapes.tape.Tape; given {tape!r}.")
    if not callable(loss):
        if tape is None:
            raise ValueError(
                f"`tape` is required when a loss is passed as a value. Received: loss={loss!r}, tape=None."
            )
        sources = flatten(var_list() if callable(var_list) else var_list)
        return list(zip(tape.gradient(loss, sources, _scaled(grad_loss, loss, scale)), sources, strict=True))
    if jac and tape is not None:
        raise ValueError("`tape` and `jac=True` exclude each other: a loss that returns gradients needs no tape.")
    tree = None if callable(var_list) else _checked(var_list)
    call = _call_of(loss, tree)
    if jac or (tape is None and not _are_numpy(tree)):
        arguments = mapped(array_of, tree)
        value = call(arguments)
        return _paired(value, _checked(var_list()) if callable(var_list) else tree)
    tape = GradientTape() if tape is None else tape
    value, tree = _recorded(lambda x: (call(x), _checked(var_list()) if callable(var_list) else tree), tree, tape)
    if isinstance(value, tuple):
        return _paired(value, tree)
    sources = flatten(tree)
    return list(zip(tape.gradient(value, sources, _scaled(grad_loss, value, scale)), sources, strict=True))


def tape_of(arrays: Iterable[Array]) -> Callable[[], Tape]:
    """Return what makes a tape for arrays of `x0`; ``TypeError`` if they are of a library that has none."""
    libraries = {namespace(array).__name__.removeprefix("array_api_compat.") for array in arrays}
    tapes: dict[str, Callable[[], Tape]] = {"numpy": GradientTape, "torch": TorchTape}
    if len(libraries) > 1 or not libraries <= tapes.keys():
        raise TypeError(
            f"Without jac, fun is differentiated, which is done for arrays of NumPy or of PyTorch; x0 has arrays "
            f"of {', '.join(sorted(libraries))}. Let fun return (value, gradients) and pass jac=True."
        )
    return tapes[libraries.pop()]


def value_and_gradients(
    loss: Callable[[Any], Any], tree: Tree, tape: Tape, scale: float = 1.0
) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return the value of a loss of variables, and (gradient, variable) pairs, of gradients times `scale`."""
    value, sources = _recorded(loss, tree, tape), flatten(tree)
    if isinstance(value, tuple | list):
        raise TypeError(f"fun returned a {type(value).__name__}; if that is (value, gradients), pass jac=True.")
    gradients = tape.gradient(value, sources, _scaled(None, value, scale))
    return detached(_untraced(value)), list(zip(gradients, sources, strict=True))


def _recorded(call: Callable[[Any], Any], tree: Tree, tape: Tape) -> Any:
    """Return what a function gives for traced values."""
    try:
        with tape:
            return call(mapped(tape.watch, tree) if tree is not None else None)
    except Exception as error:
        error.add_note(_NOTE)
        raise


_NOTE = (
    "The loss ran on traced values, which can't be written into arrays: build these by functions of "
    "autograd.numpy, such as array, where and concatenate (with a TorchTape, of torch). If the loss returns "
    "(value, gradients) itself, pass jac=True."
)


def _scaled(grad_loss: Any, loss: Any, scale: float) -> Any:
    """Return the weights of the elements of a loss, times a scale."""
    if scale == 1.0:
        return grad_loss
    if grad_loss is None:
        return np.full(tuple(loss.shape), scale) if hasattr(loss, "shape") else scale
    weights = array_of(grad_loss)
    return (weights if is_array(weights) else np.asarray(weights)) * scale


def _checked(var_list: Tree) -> Any:
    """Return variables in their structure, with lists for other iterables; ``TypeError`` if one is none."""
    count = itertools.count()

    def checked(source: Any) -> Any:
        if isinstance(source, Variable) or is_array(source):
            next(count)
            return source
        if isinstance(source, Iterable) and not isinstance(source, str):
            return mapped(checked, list(source))
        raise TypeError(f"Variable {next(count)} {described(source)}: expected an array or a rmsprop.Variable.")

    return mapped(checked, var_list)


def _are_numpy(tree: Tree) -> bool:
    return tree is None or all([isinstance(array_of(source), np.ndarray) for source in flatten(tree)])


def _call_of(loss: Callable[..., Any], tree: Tree) -> Callable[[Any], Any]:
    """Return the function that passes values, in the structure of the variables, to a loss.

    The outermost dict gives keyword arguments, the outermost list or tuple positional ones. A loss that needs no
    argument gets none if all are `Variable`s, which it can reach by itself, or if there is no `tree`.

    Raises
    ------
    TypeError
        If the loss does not take them.
    """
    if tree is None:
        return lambda values: loss()
    if isinstance(tree, dict):
        if _accepts(loss, 0, tree):
            return lambda values: loss(**values)
        needs_none = not inspect.signature(loss).parameters
    else:
        needs_none = _accepts(loss, 0)
        if not (needs_none and _has_variables_only(tree)):
            if not is_tree(tree) and _accepts(loss, 1):
                return loss
            if isinstance(tree, list | tuple) and _accepts(loss, len(tree)):
                return lambda values: loss(*values)
    if not needs_none:
        raise TypeError(_misfit(loss, tree))
    return lambda values: _without_arguments(loss, tree)


def _has_variables_only(tree: Tree) -> bool:
    return all([isinstance(source, Variable) for source in flatten(tree)])


def _without_arguments(loss: Callable[..., Any], tree: Tree) -> Any:
    value = loss()
    if not isinstance(value, tuple) and not _has_variables_only(tree):
        raise TypeError("A loss of plain arrays must take them as arguments, or return (value, gradients).")
    return value


def _misfit(loss: Callable[..., Any], tree: Tree) -> str:
    """Return the message for a loss that does not take its variables."""
    count = len(tree) if isinstance(tree, list | tuple) else 1
    given = f"{count} positional argument{'s' * (count != 1)}, one for each variable"
    if isinstance(tree, dict):
        given = f"the keyword arguments {', '.join(map(repr, tree))}, the keys of its variables"
    return f"The loss {getattr(loss, '__name__', loss)}{inspect.signature(loss)} must take {given}."


def _accepts(function: Callable[..., Any], count: int, keywords: Iterable[Any] = ()) -> bool:
    """Tell whether a function can be called with as many positional arguments, and with these keywords."""
    if type(function) is FunctionType and not keywords and not function.__dict__:  # faster than its signature
        code, optional = function.__code__, len(function.__defaults__ or ())
        if not code.co_kwonlyargcount:
            is_enough = code.co_argcount - optional <= count
            return is_enough and (count <= code.co_argcount or bool(code.co_flags & inspect.CO_VARARGS))
    try:
        inspect.signature(function).bind(*range(count), **dict.fromkeys(keywords))
    except TypeError:
        return False
    except ValueError:  # a compiled function that does not tell
        return True
    return True


def _paired(result: Any, tree: Tree) -> list[tuple[Any, Any]]:
    """Pair the gradients that a loss returned with its variables, in the same structure."""
    sources = flatten(tree)
    if not isinstance(result, tuple):
        raise TypeError(
            f"With jac=True, or without a tape for other arrays than NumPy's, the loss must return "
            f"(value, gradients); for variables of {namespace(array_of(sources[0])).__name__} it returned a "
            f"{type(result).__name__}."
        )
    tree = tree if is_tree(tree) else [tree]
    gradients = matched(result[1], tree) if len(result) == 2 else None
    if gradients is None and len(result) == 2 and not is_tree(result[1]):
        gradients = matched([result[1]], tree)  # of one variable, its gradient alone will do
    if gradients is None:
        raise ValueError(
            f"A loss must return its value, or (value, gradients) with {len(sources)} gradients in the structure "
            f"of the variables, {outline(tree)}; it returned {outline(result)}."
        )
    return [(_untraced(gradient), source) for gradient, source in zip(gradients, sources, strict=True)]


def _untraced(gradient: Any) -> Any:
    from autograd.tracer import getval

    if isinstance(gradient, SPARSE):
        return replace(gradient, values=_untraced(gradient.values))
    if isinstance(gradient, np.ndarray) and gradient.dtype == object:
        raise TypeError("the loss returned a gradient of traced values in a plain array; pass jac=True.")
    return getval(gradient)
