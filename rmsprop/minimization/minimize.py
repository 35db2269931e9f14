"""Minimisation as in SciPy: `minimize`, for arrays of any library in any structure, complex ones, and batches."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from rmsprop.checkpoints import CheckpointManager
from rmsprop.minimization.agreement import agreement_of
from rmsprop.minimization.arguments import optimizer_of, rates_of, refuse, way
from rmsprop.minimization.best import Best
from rmsprop.minimization.bounds import updates_of
from rmsprop.minimization.callbacks import progress_bar, told
from rmsprop.minimization.loop import Loop
from rmsprop.minimization.losses import Epochs, Losses
from rmsprop.minimization.objective import objective_of
from rmsprop.minimization.point import Point
from rmsprop.minimization.result import OptimizeResult
from rmsprop.minimization.run import begin, result_of, walked
from rmsprop.minimization.stops import Patience
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Rate, flag, number, whole
from rmsprop.variables.nested import Tree


def minimize(
    fun: Callable[..., Any],
    x0: Tree,
    args: Any = (),
    *,
    jac: Callable[..., Any] | bool | None = None,
    hess: None = None,
    hessp: None = None,
    bounds: Any = None,
    constraints: Any = (),
    callback: Callable[..., Any] | None = None,
    tol: float | None = None,
    patience: int = 10,
    learning_rate: Rate | Tree | None = None,
    steps: int | None = None,
    batches: Iterable[Any] | Callable[[int], Iterable[Any]] | None = None,
    epochs: int | None = None,
    optimizer: RMSprop | None = None,
    projection: Callable[[Any], Any] | None = None,
    keep_best: bool = False,
    max_seconds: float | None = None,
    overwrite_x0: bool = False,
    progress: bool = False,
    check_every: int = 50,
    checkpoint: CheckpointManager | None = None,
    **settings: Any,
) -> OptimizeResult:
    """Minimise a function by RMSprop, with the interface of ``scipy.optimize.minimize``.

    It is also a method of that: ``scipy.optimize.minimize(fun, x0, jac=True, method=rmsprop.minimize,
    options={"learning_rate": 0.01, "steps": 500})``.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` or, with `batches`, ``fun(x, batch, *args)``, where `x` has the structure of `x0`. It
        returns the loss, a real number or an array of one; with ``jac=True`` ``(loss, gradients)``.
    x0 : array, Variable, or nested list, tuple or dict of these
        Where to begin: arrays of any library and shape, real or complex. A list of numbers is taken for an array,
        integers of NumPy for float64.
    args : tuple, optional
        What else `fun` and `jac` are given.
    jac : {True, callable, None}, default None
        True if `fun` returns gradients, too, in the structure of `x0`, or a function that returns them. By default
        `fun` is differentiated: by autograd, for functions of ``autograd.numpy``, or of tensors by PyTorch. The
        gradient by a complex array is ``dL/dRe + i dL/dIm``; see `check_gradients`.
    hess, hessp, constraints : empty
        Refused if they are not.
    bounds : optional
        Of a real array, a pair ``(low, high)``, or a pair for each element, or a ``scipy.optimize.Bounds``, with
        None for no limit. If `x0` is a structure, a like one of these, or of None for arrays without. `x0` is
        clipped first, and `x` after each step.
    callback : callable, optional
        ``callback(intermediate_result)``, if that is the name of its parameter, with `x`, `fun` and `nit`; `x` is
        a copy that is made when it is read; else ``callback(x)`` with a copy. It may raise ``StopIteration``.
    tol : float, optional
        Stops once the loss, with batches its mean over an epoch, has not fallen below the lowest so far by more
        than ``tol * max(1, abs(lowest))``, `patience` times on end.
    patience : int, default 10
    learning_rate : number, schedule, callable, or structure of numbers like `x0`, optional
        That of `RMSprop` by default. A structure has a number for each array. A callable that is no schedule is
        called once more in each step, for the history.
    steps : int, optional
        How many, at most; by default 1,000, with batches as many as there are.
    batches : iterable, or callable of the number of the epoch that returns one, optional
        Each is passed to `fun` and makes a step.
    epochs : int, optional
        How often to go through the batches; by default once, or if `steps` are given as often as these take.
    optimizer : RMSprop, optional
        To go on with, or that of any convention; else a new one has the `settings`. If it knows arrays in `x0`, it
        goes on with their copies in their place.
    projection : callable, optional
        ``projection(x)`` returns what `x` becomes after each step, in the same structure; bounds come after it.
        Steps have another size for each element, so that they rest at the minimum only with a projection of each
        element by itself, such as one of moduli. One that couples elements, such as that to a ball of the 1-norm,
        needs an `epsilon` that is large beside the root mean square of gradients.
    keep_best : bool, default False
        Whether the result is the point of the lowest loss, or the end of the epoch with the lowest mean loss. It
        costs a copy at each improvement.
    max_seconds : float, optional
        After which to stop.
    overwrite_x0 : bool, default False
        Whether the arrays in `x0` themselves are changed, and not copies.
    progress : bool, default False
        Whether to show a bar, by tqdm, with the loss and steps per second.
    check_every : int, default 50
        After how many steps losses on a GPU are brought to the host. Nothing waits for them, so that `tol`, and a
        loss that is not finite, are noticed later, by up to three times as many steps.
    checkpoint : CheckpointManager, optional
        Saves after steps, as it is told to. If it has a checkpoint, that is gone on from.
    **settings
        Those of `RMSprop`.

    Returns
    -------
    OptimizeResult
        See there for its entries and each `status`. An error that `fun` raises is passed on.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these; nothing has been evaluated then. If gradients do not fit.

    Notes
    -----
    Without batches, each step begins with an evaluation, and the callback with its `x`, `fun` and `nit`; one
    evaluation follows the last step, so that `fun` belongs to `x` and ``nfev == nit + 1``. With batches
    ``nfev == nit``, callbacks follow each step, and `fun` is the mean of the last epoch. `fun` is given the arrays
    themselves, which change in place: what it keeps must be a copy.

    In the scope of a strategy of `rmsprop.distribute`, or with an optimizer from one, the loss is the sum of those
    of all replicas, all of which begin with the `x0` of rank 0 and stop at the same step.

    Examples
    --------
    A minimum within bounds:

    >>> import numpy as np, rmsprop
    >>> rng = np.random.default_rng(0)
    >>> A, truth = rng.standard_normal((50, 3)), np.array([1.0, -2.0, 0.5])
    >>> def loss(x):
    ...     residual = A @ (x - truth)
    ...     return residual @ residual / 2, A.T @ residual
    >>> result = rmsprop.minimize(loss, np.zeros(3), jac=True, bounds=(-1.5, None), learning_rate=0.02, steps=300)
    >>> result.nit, result.success, float(result.x.min())
    (300, True, -1.5)

    Batches, of a structure with complex arrays:

    >>> def loss(x, batch):
    ...     wrong = x["scale"] * x["field"] - batch
    ...     gradient = 2 * wrong
    ...     return np.sum(np.abs(wrong) ** 2), {
    ...         "scale": np.real(np.vdot(x["field"], gradient)), "field": np.conj(x["scale"]) * gradient}
    >>> data = [np.array([2j, 4]), np.array([2.2j, 3.8])]
    >>> x0 = {"scale": np.array(1.0), "field": np.ones(2, complex)}
    >>> result = rmsprop.minimize(loss, x0, jac=True, batches=data, epochs=200, learning_rate=0.01)
    >>> np.round(result.x["scale"] * result.x["field"], 1)
    array([0. +2.1j, 3.9+0.j ])
    """
    for name, value in (("hess", hess), ("hessp", hessp), ("constraints", constraints)):
        refuse(name, value)
    point = Point(x0, flag({}, "overwrite_x0", overwrite_x0))
    walk, total = way(steps, batches, epochs)
    losses = Losses(whole({}, "check_every", check_every))
    clips, updates = updates_of(point, bounds, projection)
    patience = whole({}, "patience", patience)
    keeps_best, is_shown = flag({}, "keep_best", keep_best), flag({}, "progress", progress)
    if checkpoint is not None and not isinstance(checkpoint, CheckpointManager):
        raise TypeError(f"checkpoint must be a rmsprop.CheckpointManager or None; given {checkpoint!r}.")
    rates = rates_of(learning_rate, point)
    optimizer = optimizer_of(optimizer, learning_rate if rates is None else 1.0, settings)
    strategy: Any = optimizer._state.strategy
    loop = Loop(
        optimizer=optimizer,
        evaluate=objective_of(fun, jac, args if isinstance(args, tuple) else (args,), point, optimizer),
        updates=updates,
        losses=losses,
        epochs=Epochs(losses),
        agreement=agreement_of(strategy),
        best=Best(point) if keeps_best else None,
        patience=None if tol is None else Patience(number("tol", tol, 0.0), patience),
        seconds=math.inf if max_seconds is None else number("max_seconds", max_seconds, 0.0),
        tell=told(callback, point),
    )

    def run() -> OptimizeResult:
        begin(loop, point, rates, clips, checkpoint)
        with progress_bar(is_shown and loop.agreement.rank == 0, losses, total, loop.first) as loop.show:
            stop = walked(loop, walk)
        return result_of(loop, point, stop, rates, has_batches=batches is not None)

    return run() if strategy is None else strategy.run(run)
