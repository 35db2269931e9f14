"""The number of steps, which is certain only when devices have told which ones they left out."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from rmsprop.arrays.libraries import Host, checked_numbers, own
from rmsprop.backends import Tally
from rmsprop.state.loss_scale import LossScale
from rmsprop.variables.operators import value_of
from rmsprop.variables.variable import Variable

LARGEST = 2**62
"""The largest count that can be given: no number of steps leads from there to where counts become negative."""


class Iterations(Variable):
    """The number of steps taken; to read it waits for devices that may have left out some.

    Parameters
    ----------
    count : array of int64, shape ()
    name : str, default "iterations"
    skipped : int, default 0

    Attributes
    ----------
    count : array
        The number of steps, with those that a device may yet turn out to have left out.
    skipped : int
        How many were left out, as far as that is known.
    tally : Tally or None
        What knows of more.
    owner : weakref.ref or None
        The state that it belongs to, whose lock is held while the tally is read: other threads may step then.
    loss_scale : LossScale or None
        What is told of each step if it was taken.
    """

    __slots__ = ("_undecided", "count", "loss_scale", "owner", "skipped", "tally")

    def __init__(self, count: Any, name: str = "iterations", skipped: int = 0) -> None:
        self.count: Host = count
        self.name, self.trainable, self.constraint = name, False, None
        self.skipped = skipped
        self.tally: Tally | None = None
        self.owner: Callable[[], Any] | None = None
        self.loss_scale: LossScale | None = None
        self._undecided = 0

    @property
    def array(self) -> Any:
        """The number of steps, an array that can be written to."""
        self.settle()
        return self.count

    def take(self, tally: Tally | None = None) -> None:
        """Count a step, of which a device may yet tell the tally that it was left out."""
        self.count[()] += 1
        if tally is not None:
            if tally is not self.tally:
                self.tally = tally
            self._undecided += 1
        elif self.loss_scale is not None:
            self.loss_scale._update(is_finite=True)

    def skip(self) -> None:
        """Count a step that has been left out."""
        self.skipped += 1
        if self.loss_scale is not None:
            self.loss_scale._update(is_finite=False)

    def settle(self) -> None:
        """Wait until it is known which steps were left out, and no longer count these."""
        if self.tally is None:
            return
        owner = self.owner() if self.owner is not None else None
        with nullcontext() if owner is None else owner.lock:
            missing = self.tally.take()
            self.count[()] -= missing
            for _ in range(missing):
                self.skip()
            if self.loss_scale is not None:  # with which no step begins before the last one is decided
                for _ in range(self._undecided - missing):
                    self.loss_scale._update(is_finite=True)
            self._undecided = 0

    def assign(self, value: Any) -> Variable:
        """Replace the number; ``ValueError`` if the value is not a whole one from 0 to 2**62."""
        check_count(checked_numbers(value_of(value), self.name), self.name)
        return super().assign(value)

    def __reduce__(self) -> Any:
        return _restored, (self.array, self.name, self.skipped), (None, {"loss_scale": self.loss_scale})


def _restored(count: Host, name: str, skipped: int) -> Iterations:
    return Iterations(own(count), name, skipped)


def check_count(number: Any, what: str) -> None:
    """Raise ``ValueError`` unless an array without axes is a whole number from which one can go on to count."""
    value = number.item() if number.ndim == 0 else None
    if not isinstance(value, int | float) or not 0 <= value <= LARGEST or value != int(value):
        raise ValueError(f"{what} is a whole number that is not negative, up to 2**62; given {number}.")
