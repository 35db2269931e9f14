"""The check of a gradient: slopes of the loss along random directions, array by array."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Host, to_numpy
from rmsprop.gradient_checks.dense import dense, precision_of
from rmsprop.gradient_checks.differences import first_step, slope
from rmsprop.gradient_checks.losses import Loss
from rmsprop.gradient_checks.report import ArrayCheck, GradientCheck
from rmsprop.gradient_checks.verdicts import Evidence, Verdict, judged
from rmsprop.gradient_checks.worst import Element, worst_elements
from rmsprop.variables.nested import Tree, rebuilt

FEWEST = 2
"""Directions that each array needs: of a complex one, one is real and one imaginary."""


def check_gradients(
    fun: Callable[..., Any],
    x0: Tree,
    args: Any = (),
    jac: Any = True,
    *,
    directions: int | None = None,
    seed: Any = 0,
    raise_on_failure: bool = False,
) -> GradientCheck:
    """Compare gradients that were written by hand with differences of the loss.

    Each array is moved along random directions while the others stay. The slopes of the loss, by central
    differences with extrapolation and an estimate of their error, are compared with what the gradient predicts.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` returns the loss, a real number, and with ``jac=True`` the gradients, too: (value,
        gradients). It gets copies: `x0` is never changed.
    x0 : array or Variable, or nested list, tuple or dict of these
        Where to check: arrays of any library, of float16, bfloat16, float32, float64, complex64 or complex128.
        Numbers and lists of them are taken for arrays, integers of NumPy for float64. Random values are best:
        at a minimum or a kink no difference can tell.
    args : tuple, optional
        Further arguments of `fun` and `jac`.
    jac : True, callable or None
        ``jac(x, *args)`` returns the gradients. With None, `fun` is differentiated by the tape, as
        `rmsprop.minimize` does, and that is checked.
    directions : int, optional
        How many for each array, at least 2, half of them imaginary for a complex one. By default 3 for a real
        array and 4 for a complex one. Each takes 14 evaluations, or 28 where the first ones don't tell.
    seed : int or numpy.random.Generator, default 0
        What directions are drawn by.
    raise_on_failure : bool, default False
        Whether to raise unless all is right.

    Returns
    -------
    GradientCheck
        With `success`, `verdicts` and `scales` in the structure of `x0`, and `arrays` for details. It prints as a
        table, and is true if all is right: ``assert check_gradients(fun, x0)`` is a test.

    Raises
    ------
    AssertionError
        With `raise_on_failure`, if a verdict is another than "right"; it shows the table.
    TypeError
        If `fun` returns something else, a complex value, or `x0` has other arrays.
    ValueError
        If the gradients have another structure or shape than `x0`.

    Notes
    -----
    Gradients g have the structure of `x0`; None counts as zeros, and `IndexedSlices` and `Windows` are summed.
    Of complex arrays they are ``dL/dRe + i dL/dIm``, the direction of steepest ascent, so that the slope along d
    is ``Re(sum(conj(g) d))``. With the true gradient t, the first of these that fits is the verdict:

    - "zero": g is 0 everywhere, t is not.
    - "unclear": the differences can't tell, for noise, a kink, or a point where the loss hardly changes.
    - "right": g = t. The only success.
    - "scaled", "negative": g = s t, s > 0 or s < 0.
    - "conjugate": g = s conj(t).
    - "times i": g = s i t.
    - "real part": g = s Re t.
    - "wrong": something else; the elements where it is most wrong are shown.

    In single precision, slopes are known to some 3 or 4 digits: a fault in few elements of many may go unseen, and
    more so in half precision.

    Examples
    --------
    >>> import numpy as np, rmsprop
    >>> A, b = np.array([[1, 2j], [3, 4], [1j, 1]]), np.array([1, 2, 3])
    >>> def loss(z):
    ...     r = A @ z - b
    ...     return np.vdot(r, r).real, A.conj().T @ r
    >>> rmsprop.check_gradients(loss, np.array([1 + 1j, 2 - 1j]))  # doctest: +ELLIPSIS
    array  verdict  scale  elements  misfit   error
    x0     scaled   0.5    2         5.0e-01  ...
    x0: The gradient is 0.5 times the true one. It is the Wirtinger derivative dL/dconj(z): multiply it by 2.
    """
    if directions is not None and (not isinstance(directions, int | np.integer) or directions < FEWEST):
        raise ValueError(f"directions must be an integer >= {FEWEST}, or None; given {directions!r}.")
    loss = Loss(fun, args if isinstance(args, tuple) else (args,), jac, x0)
    here, gradients = loss.at_start()
    loss.precision = max(loss.precision, *map(precision_of, gradients))
    dense_ones = [
        dense(gradient, tuple(array.shape), name)
        for gradient, array, name in zip(gradients, loss.arrays, loss.names, strict=True)
    ]
    rng = np.random.default_rng(seed)
    arrays = tuple(
        [checked_array(loss, position, here, each, directions, rng) for position, each in enumerate(dense_ones)]
    )
    result = GradientCheck(
        all([array.verdict == "right" for array in arrays]),
        rebuilt(loss.x0, [array.verdict for array in arrays]),
        rebuilt(loss.x0, [array.scale for array in arrays]),
        arrays,
        loss.evaluations,
    )
    if raise_on_failure and not result.success:
        raise AssertionError(f"Gradients are not right:\n{result!r}")
    return result


def checked_array(
    loss: Loss, position: int, here: float, gradient: Host, count: int | None, rng: np.random.Generator
) -> ArrayCheck:
    """Return what is found on the gradient of one array."""
    name, array = loss.names[position], loss.arrays[position]
    is_complex = dtypes.is_complex(dtypes.name_of(array.dtype))
    verdict, worst = Verdict("right", 1.0), tuple[Element, ...]()
    if not math.isfinite(here):
        verdict = Verdict("unclear", reason="not finite", misfit=math.nan, error=math.inf)
    elif gradient.size:
        largest = float(np.max(np.abs(to_numpy(array).astype(np.complex128))))
        step = first_step(largest, loss.precision)
        ways = [drawn(rng, gradient.shape, is_complex and k % 2 == 1) for k in range(count or 3 + is_complex)]
        slopes = [slope(loss.along(position, way), here, step, loss.precision) for way in ways]
        verdict = judged(Evidence(gradient, ways, slopes, is_complex, loss.precision))
        if verdict.word == "wrong" and not verdict.reason:
            way = drawn(rng, gradient.shape, False) + (drawn(rng, gradient.shape, True) if is_complex else 0)
            worst = worst_ones(loss, position, here, gradient, step / 4, way)
    return ArrayCheck.of(name, gradient.size, verdict, is_complex, worst)


def worst_ones(
    loss: Loss, position: int, here: float, gradient: Host, step: float, way: Host
) -> tuple[Element, ...]:
    """Return the worst elements of a gradient, of those that differ by more than differences can err."""

    def measure(direction: Host) -> float:
        values = loss.along(position, direction)
        return (values(step) - values(-step)) / (2 * step)

    rounding = 8 * loss.precision * abs(here) / step

    def is_off(element: Element) -> bool:
        size = max(abs(element.given), abs(element.measured))
        return abs(element.given - element.measured) > rounding + 1e-3 * size

    return tuple(filter(is_off, worst_elements(measure, gradient, way)))


def drawn(rng: np.random.Generator, shape: tuple[int, ...], is_imaginary: bool) -> Host:
    """Return a random direction: signs times numbers between 0.5 and 1.5, which even bfloat16 holds exactly."""
    way = rng.choice([-1.0, 1.0], shape) * rng.integers(64, 192, shape, endpoint=True) / 128
    return 1j * way if is_imaginary else way
