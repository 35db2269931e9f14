"""Agreement of the replicas of a strategy on losses and stops, so that all of them take the same steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rmsprop.minimization.losses import checked
from rmsprop.minimization.stops import Stop
from rmsprop.variables.nested import Tree

OWN = (2, 99, -2)
"""The statuses that a replica may come to by itself; the last of them that any has is that of all."""


class Alone:
    """One replica, which need not ask anybody."""

    rank = 0

    def begin(self, variables: Tree) -> None:
        """Give variables the values of rank 0."""

    def total(self, loss: Any) -> Any:
        """Return the sum of the losses of all replicas."""
        return loss

    def decide(self, stop: Stop | None) -> None:
        """Raise what any replica wants to stop by."""
        if stop is not None:
            raise stop

    def end(self, nit: int) -> None:
        """Wait for all replicas, which must have taken the same number of steps."""

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Return a context in which Ctrl-C raises ``KeyboardInterrupt`` at once."""
        yield


class Together(Alone):
    """One of several replicas, which do the same in each step.

    Parameters
    ----------
    strategy : rmsprop.distribute.Strategy
    """

    def __init__(self, strategy: Any) -> None:
        self._strategy, self.rank = strategy, strategy.rank
        self._is_interrupted = False

    def begin(self, variables: Tree) -> None:
        """Give variables the values of rank 0."""
        self._strategy.broadcast(variables)

    def total(self, loss: Any) -> float:
        """Return the sum of the losses of all replicas, for which they wait for each other."""
        own = checked(loss)
        return float(self._strategy.all_reduce("sum", np.array([float(own)]))[0])

    def decide(self, stop: Stop | None) -> None:
        """Raise what any replica wants to stop by, on all of them at the same step."""
        status = -2 if self._is_interrupted else None if stop is None else stop.status
        votes = self._strategy.all_reduce("sum", np.array([float(each == status) for each in OWN]))
        found = [each for each, vote in zip(OWN, votes, strict=True) if vote]
        if found:
            raise stop if stop is not None and stop.status == found[-1] else Stop(found[-1])

    def end(self, nit: int) -> None:
        """Wait for all replicas, which must have taken the same number of steps."""
        self._strategy.ranks.agree("the end of minimize", (f"taken {nit} steps",))

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Return a context in which Ctrl-C on any rank ends the step that all of them take, and no sooner."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handler: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, handler)

    def _interrupt(self, *signalled: object) -> None:
        self._is_interrupted = True


def agreement_of(strategy: Any) -> Alone:
    """Return the agreement that a strategy asks for."""
    return Alone() if strategy is None or strategy.num_replicas_in_sync == 1 else Together(strategy)
