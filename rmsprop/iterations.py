"""The number of steps, which is certain only when devices have told which ones they left out."""

from typing import Any, Protocol

import numpy as np

from rmsprop.variable import Variable


class Tally(Protocol):
    """What a backend keeps of the steps that a device decides on by itself."""

    def take(self) -> int:
        """Wait until all steps are decided; return how many have been left out since the last time."""
        ...

    def replayed(self) -> None:
        """Take note that captured steps are about to be replayed in the current stream."""


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
    """

    __slots__ = ("count", "skipped", "tally")

    def __init__(self, count: Any, name: str = "iterations", skipped: int = 0) -> None:
        self.count: np.ndarray[Any, Any] = count
        self.name, self.trainable, self.constraint = name, False, None
        self.skipped = skipped
        self.tally: Tally | None = None

    @property
    def array(self) -> Any:
        """The number of steps, an array that can be written to."""
        self.settle()
        return self.count

    def settle(self) -> None:
        """Wait until it is known which steps were left out, and no longer count these."""
        if self.tally is not None:
            missing = self.tally.take()
            self.count[()] -= missing
            self.skipped += missing

    def __reduce__(self) -> Any:
        return Iterations, (self.array, self.name, self.skipped)
