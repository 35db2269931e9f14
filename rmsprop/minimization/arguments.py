"""The arguments of `rmsprop.minimize`: what they may be, and what is made of them."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from functools import partial
from typing import Any

from rmsprop.minimization.loop import Batches, Loop, by_batches, by_steps
from rmsprop.minimization.point import Point
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import number, whole
from rmsprop.variables.nested import is_tree

OTHER_WORDS = {"maxiter": "steps", "maxfun": "steps", "niter": "steps", "disp": "progress", "ftol": "tol"}
"""Options of SciPy's own methods, and what they are called here."""


def refuse(name: str, value: Any) -> None:
    """Raise ``ValueError`` for what SciPy's other methods are given, unless it is empty."""
    if value is not None and not (isinstance(value, list | tuple | dict) and not value):
        raise ValueError(
            f"{name} can't be used by RMSprop; expected none. Limits of single numbers are bounds, and what x "
            f"must fulfil can be brought about by projection(x) after each step. Given {value!r}."
        )


def way(steps: Any, batches: Any, epochs: Any) -> tuple[Callable[[Loop], None], int | None]:
    """Return what takes all steps, and their number if it is known."""
    steps = None if steps is None else whole({}, "steps", steps)
    epochs = None if epochs is None else whole({}, "epochs", epochs)
    if batches is None:
        if epochs is not None:
            raise ValueError(f"epochs are passes through batches, of which there are none; given {epochs!r}.")
        steps = 1000 if steps is None else steps
        return partial(by_steps, steps=steps), steps
    if callable(batches):
        batches_of: Batches = batches
    elif isinstance(batches, Iterable) and not isinstance(batches, str):
        if isinstance(batches, Iterator):
            if epochs is not None and epochs > 1:
                raise ValueError(
                    "batches is an iterator, which ends after one epoch; expected a list, or a function of the "
                    "number of the epoch that returns a new iterator."
                )
            epochs = 1
        batches_of = partial(_same, batches)
    else:
        raise TypeError(f"batches must be an iterable, or a function that returns one; given {batches!r}.")
    passes = epochs if epochs is not None else 1 if steps is None else math.inf
    walk = partial(by_batches, batches=batches_of, epochs=passes, steps=math.inf if steps is None else steps)
    count = len(batches) * passes if isinstance(batches, Sized) and passes < math.inf else math.inf
    total = min(count, math.inf if steps is None else steps)
    return walk, None if total == math.inf else int(total)


def _same(batches: Iterable[Any], epoch: int) -> Iterable[Any]:
    return batches


def rates_of(learning_rate: Any, point: Point) -> list[float] | None:
    """Return the learning rate of each array, if they are given in a structure."""
    if not is_tree(learning_rate):
        return None
    given = zip(point.names, point.matched(learning_rate, "learning_rate"), strict=True)
    return [number(f"learning_rate of {name!r}", rate) for name, rate in given]


def optimizer_of(optimizer: RMSprop | None, learning_rate: Any, settings: dict[str, Any]) -> RMSprop:
    """Return the optimizer that is given, or a new one with these settings."""
    if optimizer is None:
        known = inspect.signature(RMSprop).parameters
        for name in settings.keys() - known.keys():
            hint = f"; expected {OTHER_WORDS[name]!r}" if name in OTHER_WORDS else ""
            raise TypeError(f"minimize() has no argument {name!r}{hint}.")
        given = settings if learning_rate is None else {"learning_rate": learning_rate, **settings}
        optimizer = RMSprop(**given)
    elif not isinstance(optimizer, RMSprop):
        raise TypeError(f"optimizer must be a rmsprop.RMSprop or None; given {optimizer!r}.")
    elif settings or learning_rate is not None:
        names = [*settings, *(["learning_rate"] if learning_rate is not None else [])]
        raise TypeError(f"an optimizer has its own settings; expected none beside it, given {', '.join(names)}.")
    if optimizer.maximize:
        raise ValueError("maximize=True leads away from a minimum; return the negative of the loss instead.")
    return optimizer
