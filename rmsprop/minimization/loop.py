"""The loop of a minimisation: evaluations, steps, callbacks and stops in their order."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Any

from rmsprop.minimization.agreement import Alone
from rmsprop.minimization.best import Best
from rmsprop.minimization.bounds import Update
from rmsprop.minimization.losses import Epochs, Losses
from rmsprop.minimization.objective import Objective
from rmsprop.minimization.stops import Patience, Stop
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Pairs

Batches = Callable[[int], Iterable[Any]]
"""Given the number of an epoch, from 0 on, returns its batches."""


@dataclass
class Loop:
    """What a minimisation is made of, and how far it has come."""

    optimizer: RMSprop
    evaluate: Objective
    updates: list[Update]
    """What is done after each step."""
    losses: Losses
    epochs: Epochs
    agreement: Alone
    best: Best | None = None
    patience: Patience | None = None
    seconds: float = math.inf
    """After how many of them to stop."""
    tell: Callable[[Any, int], None] | None = None
    """Given a loss and the number of steps, calls back."""
    show: Callable[[Any, int], None] | None = None
    """Given a loss and the number of steps, shows them."""
    save: Callable[[], object] | None = None
    """Saves a checkpoint, if one is due."""
    first: int = 0
    """How many steps had been taken before a resumption."""
    nit: int = 0
    nfev: int = 0
    begun: float = field(default_factory=perf_counter)
    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    pairs: Pairs = field(default_factory=list)

    def look(self, *batch: Any) -> Any:
        """Evaluate the loss and its gradients; return the loss, which is an array if it is on a device."""
        loss, self.pairs = self.evaluate(*batch)
        self.nfev += 1
        return self.losses.add(self.agreement.total(loss))

    def step(self) -> None:
        """Take a step with the gradients of the last evaluation."""
        settings, constant = self.optimizer._settings, self.optimizer._settings.constant
        if constant is None:
            number = int(self.optimizer.iterations) if settings.depends_on_step() else 0
        self.rates.append(settings.learning_rate_at(number) if constant is None else constant.learning_rate)
        self.times.append(perf_counter() - self.begun)
        self.optimizer.apply_gradients(self.pairs)
        for update in self.updates:
            update()
        self.nit += 1
        if self.save is not None:
            self.save()

    def report(self, loss: Any) -> None:
        """Call back; stop if this replica, or any other, has a reason to that is its own."""
        stop = Stop(2) if perf_counter() - self.begun > self.seconds else None
        if self.show is not None:
            self.show(loss, self.nit)
        if self.tell is not None:
            try:
                self.tell(loss, self.nit)
            except StopIteration:
                stop = Stop(99)
        self.agreement.decide(stop)

    def judge(self) -> None:
        """Stop at a loss that is not finite, of those that have become known."""
        position = self.losses.first_nonfinite()
        if position is not None:
            raise Stop(-1, f"{self.losses.known[position]} after {self.first + position} steps")

    def end_epoch(self) -> None:
        """Look at the mean loss since the last epoch."""
        mean = self.epochs.end()
        if mean is not None and self.best is not None:
            self.best.offer(mean)
        if self.patience is not None:
            self.patience.judge(self.epochs.means)


def by_steps(loop: Loop, steps: int) -> None:
    """Take steps, each of which begins with an evaluation; one more follows the last of them."""
    while True:
        loss = loop.look()
        if loop.best is not None:
            loop.best.offer(loss)
        if loop.nit > loop.first:
            loop.report(loss)
        loop.judge()
        if loop.nit >= steps:
            raise Stop(0)
        if loop.patience is not None:
            loop.patience.judge(loop.losses.known)
        loop.step()


def by_batches(loop: Loop, batches: Batches, epochs: float, steps: float) -> None:
    """Go through batches, each of which is a step; those before a resumption are left out."""
    for item in _items(batches, epochs, loop.first):
        if item is None:
            loop.end_epoch()
            continue
        loss = loop.look(*item)
        loop.judge()
        loop.step()
        loop.epochs.add(loss)
        loop.report(loss)
        if loop.nit >= steps:
            loop.end_epoch()
            break
    raise Stop(0)


def _items(batches: Batches, epochs: float, done: int) -> Iterator[tuple[Any] | None]:
    """Yield all batches but those that are done, each in a tuple, and None at the end of each epoch."""
    for epoch in count():
        if epoch >= epochs:
            return
        is_empty = True
        for batch in batches(epoch):
            is_empty = False
            if done:
                done -= 1
            else:
                yield (batch,)
        if is_empty:
            raise ValueError(f"batches gave none in epoch {epoch}.")
        yield None
