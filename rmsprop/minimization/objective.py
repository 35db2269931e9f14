"""The objective of a minimisation: the caller's function with its gradients, whichever way these come."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rmsprop.minimization.point import Point
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Pairs
from rmsprop.tapes.losses import tape_of, value_and_gradients
from rmsprop.variables.variable import array_of

Objective = Callable[..., tuple[Any, Pairs]]
"""Given a batch, or nothing, returns the loss at the point and pairs of gradient and variable."""


def objective_of(fun: Any, jac: Any, args: tuple[Any, ...], point: Point, optimizer: RMSprop) -> Objective:
    """Return what evaluates a function and its gradients at the point.

    Raises
    ------
    TypeError
        If `fun` or `jac` are no functions, or the function can't be differentiated.
    """
    fun, jac = _unwrapped(fun, jac)
    if not callable(fun):
        raise TypeError(f"fun must be a function; given {fun!r}.")
    if callable(jac):
        return lambda *batch: (fun(point.x, *batch, *args), point.pairs(jac(point.x, *batch, *args)))
    if isinstance(jac, bool | np.bool_) and jac:
        return _returning(fun, args, point)
    if jac is None or jac is False:
        return _differentiated(fun, args, point, optimizer)
    raise TypeError(
        f"jac must be True if fun returns (value, gradients), a function that returns the gradients, or None if "
        f"fun is to be differentiated; given {jac!r}."
    )


def _unwrapped(fun: Any, jac: Any) -> tuple[Any, Any]:
    """Return the function that SciPy was given with ``jac=True``: its memo of that knows no batches."""
    memo: Any = getattr(jac, "__self__", None)
    is_memo = type(fun).__name__ == "MemoizeJac" and type(fun).__module__.startswith("scipy.")
    return (memo.fun, True) if is_memo and memo is fun else (fun, jac)


def _returning(fun: Callable[..., Any], args: tuple[Any, ...], point: Point) -> Objective:
    def evaluate(*batch: Any) -> tuple[Any, Pairs]:
        result = fun(point.x, *batch, *args)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TypeError(
                f"With jac=True, fun must return (value, gradients); it returned a {type(result).__name__}."
            )
        return result[0], point.pairs(result[1])

    return evaluate


def _differentiated(fun: Callable[..., Any], args: tuple[Any, ...], point: Point, optimizer: RMSprop) -> Objective:
    """Return what differentiates a function by the tape of the arrays' library."""
    new_tape = tape_of([array_of(v) for v in point.variables])

    def evaluate(*batch: Any) -> tuple[Any, Pairs]:
        scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.scale
        return value_and_gradients(lambda x: fun(x, *batch, *args), point.tree, new_tape(), scale)

    return evaluate
