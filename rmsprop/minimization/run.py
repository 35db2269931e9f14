"""A run of a minimisation: how it begins, what ends it, and what comes of it."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from rmsprop.checkpoints import CheckpointManager
from rmsprop.minimization.bounds import Update
from rmsprop.minimization.loop import Loop
from rmsprop.minimization.point import Point
from rmsprop.minimization.result import OptimizeResult
from rmsprop.minimization.stops import Stop
from rmsprop.optimizer import RMSprop


def begin(
    loop: Loop, point: Point, rates: list[float] | None, clips: list[Update], checkpoint: CheckpointManager | None
) -> None:
    """Let the optimizer know the variables, go on from a checkpoint, and clip."""
    optimizer, latest = loop.optimizer, None if checkpoint is None else checkpoint.latest
    loop.agreement.begin(point.tree)
    point.go_on(optimizer)
    optimizer.build(point.tree)
    for variable, rate in zip(point.variables, rates or (), strict=rates is not None):
        optimizer.group(variable, lr_mult=rate)
    before = _calls(optimizer)
    if latest is not None:
        optimizer.restore(latest, point.tree)
        loop.first = loop.nit = _calls(optimizer) - before
    if checkpoint is not None:
        loop.save = partial(checkpoint.save, optimizer, point.tree)
    for clip in clips:
        clip()


def _calls(optimizer: RMSprop) -> int:
    """Return how often gradients have been applied."""
    return int(optimizer.iterations) * optimizer.accumulate + int(optimizer._state.accumulated.array)


def walked(loop: Loop, walk: Callable[[Loop], None]) -> Stop:
    """Take all steps; return why that has ended."""
    stop = Stop(0)
    try:
        with loop.agreement.interruptible():
            walk(loop)
    except Stop as reason:
        stop = reason
    except KeyboardInterrupt:
        stop = Stop(-2)
    loop.agreement.end(loop.nit)
    loop.losses.settle()
    loop.epochs.update()
    try:
        loop.judge()
    except Stop as reason:
        stop = reason
    return stop


def result_of(
    loop: Loop, point: Point, stop: Stop, rates: list[float] | None, has_batches: bool
) -> OptimizeResult:
    """Return what has come of a run that has ended."""
    known, missing = loop.losses.known, [math.nan] * loop.first
    fun = loop.epochs.last() if has_batches else known[-1] if known else math.nan
    if loop.best is not None and loop.best.is_there:
        loop.best.restore()
        fun = loop.best.fun
    count = loop.nit - loop.first
    given = np.array(missing + loop.rates[:count])
    history = {
        "fun": np.array(missing + known[:count]),
        "seconds": np.array(missing + loop.times[:count]),
        "learning_rate": given if rates is None else np.multiply.outer(given, rates),
    }
    return OptimizeResult(
        message=str(stop), success=stop.status in (0, 1, 2), status=stop.status, fun=fun, x=point.result(),
        nit=loop.nit, nfev=loop.nfev, history=history, optimizer=loop.optimizer,
    )  # fmt: skip
