"""The form of ``autograd.misc.optimizers``: a function that takes all steps and returns where they lead."""

from collections.abc import Callable
from numbers import Number
from typing import Any, SupportsFloat

import numpy as np

from rmsprop.arrays.libraries import as_beside
from rmsprop.conventions import autograd
from rmsprop.minimization.point import Point
from rmsprop.settings.checks import Rate, Value
from rmsprop.variables.nested import Tree, mapped
from rmsprop.variables.variable import array_of


def rmsprop(
    grad: Callable[[Any, int], Any],
    x0: Tree,
    callback: Callable[[Any, int, Any], object] | None = None,
    num_iters: int = 100,
    step_size: Rate = 0.1,
    gamma: Value = 0.9,
    eps: SupportsFloat = 10**-8,
) -> Any:
    """Take steps downhill as ``autograd.misc.optimizers.rmsprop`` does, with its arguments and results.

    The formula is that of `rmsprop.conventions.autograd`.

    Parameters
    ----------
    grad : callable
        ``grad(x, i)`` returns the gradient at `x` in step `i`, from 0 on, in the structure of `x0`.
    x0 : array, number, or nested list, tuple or dict of these
        Where to begin, of any shape; it is not changed.
    callback : callable, optional
        ``callback(x, i, g)`` is called before each step with `x`, `i` and the gradient there.
    num_iters : int, default 100
    step_size : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.1
    gamma : float, default 0.9
    eps : float, default 1e-8

    Returns
    -------
    array, or nested list, tuple or dict of arrays
        As `x0`; a number has become an array without axes.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these, or gradients do not have the structure, shape or library of `x0`.

    Notes
    -----
    What `grad` and `callback` are given is a copy, which they may keep. Other than in autograd, each array keeps
    its dtype, where autograd makes all of them the widest, and arrays of CuPy and other libraries will do, too. Of
    complex gradients, autograd averages ``g**2``, which is complex, where this has ``|g|**2``; and the gradient of
    a complex array is ``dL/dRe + i dL/dIm``, whose conjugate ``autograd.grad`` returns.

    Source: ``autograd/misc/optimizers.py``, version 1.9.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop.adapters import rmsprop
    >>> x = rmsprop(lambda x, i: {"a": 2 * x["a"], "b": 2 * (x["b"] - 1)}, {"a": np.ones(2), "b": 3.0})
    >>> np.round(x["a"], 1), np.round(x["b"], 1)
    (array([0., 0.]), np.float64(1.0))
    """
    for name, value in (("grad", grad), ("callback", callback)):
        if not (callable(value) or (name == "callback" and value is None)):
            raise TypeError(f"{name} must be a function; given {value!r}.")
    if isinstance(num_iters, bool) or not isinstance(num_iters, int | np.integer) or num_iters < 0:
        raise ValueError(f"num_iters must be a whole number from 0 on; given {num_iters!r}.")
    point = Point(mapped(_as_array, x0), overwrites=False)
    optimizer = autograd(step_size, gamma, eps)
    for i in range(num_iters):
        x = point.copy()
        gradients = grad(x, i)
        if callback is not None:
            callback(x, i, gradients)
        optimizer.apply_gradients([(_like(g, v), v) for g, v in point.pairs(gradients)])
    return point.result()


def _as_array(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, Number | np.generic) else leaf


def _like(gradient: Any, variable: Any) -> Any:
    """Return a gradient that is a number, as that of a number often is, as an array."""
    return as_beside(gradient, array_of(variable)) if isinstance(gradient, Number | np.generic) else gradient
