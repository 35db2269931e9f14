"""Callbacks as SciPy calls them, and the bar that shows progress."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rmsprop.minimization.losses import Losses
from rmsprop.minimization.point import Point
from rmsprop.minimization.result import IntermediateResult

Tell = Callable[[Any, int], None]
"""Is given a loss, which may be an array on a device, and the number of steps."""


def told(callback: Any, point: Point) -> Tell | None:
    """Return what calls back: with an ``intermediate_result`` if that is the parameter's name, else with `x`.

    Raises
    ------
    TypeError
        If it is no function.
    """
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback must be a function or None; given {callback!r}.")
    try:
        names = set(inspect.signature(callback).parameters)
    except ValueError:  # a compiled function that does not tell
        names = set()
    if names != {"intermediate_result"}:
        return lambda loss, nit: callback(point.copy())

    def tell(loss: Any, nit: int) -> None:
        result = IntermediateResult(point.copy, fun=loss, nit=nit)
        try:
            callback(intermediate_result=result)
        finally:
            result.close()

    return tell


@contextmanager
def progress_bar(is_shown: bool, losses: Losses, total: int | None, first: int) -> Iterator[Tell | None]:
    """Return a context that has what shows the last known loss and steps per second in a bar of tqdm."""
    if not is_shown:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress=True needs tqdm: `pip install tqdm`, or the extra 'progress'.", name=error.name
        ) from error
    with tqdm(total=total, initial=first, unit="step") as bar:

        def show(loss: Any, nit: int) -> None:
            if losses.known:
                bar.set_postfix(loss=f"{losses.known[-1]:.4g}", refresh=False)
            bar.update(nit - bar.n)

        yield show
