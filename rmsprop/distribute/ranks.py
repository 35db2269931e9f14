"""The ranks of a strategy, as steps and files use them: agreement on what is done, and sums of gradients."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from rmsprop.distribute.agreement import Statement
from rmsprop.distribute.link import Link
from rmsprop.distribute.reduction import Reduction, flattened, like
from rmsprop.variables.variable import Variable


class Ranks(NamedTuple):
    """The connection of a rank with all others; without one there is one rank, and nothing to agree on."""

    link: Link | None = None
    reduction: Reduction | None = None

    @property
    def rank(self) -> int:
        """The number of this rank, from 0 on."""
        return 0 if self.link is None else self.link.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return 1 if self.link is None else self.link.size

    def agree(self, doing: str, terms: Sequence[str]) -> None:
        """Wait for all ranks; ``ReplicaError`` on all of them if their terms differ, or one is missing."""
        if self.link is not None:
            self.link.agree(Statement(doing, tuple(terms)))

    def announcing(self, doing: str) -> AbstractContextManager[None]:
        """Return a context of which the other ranks are told if an error leaves it."""
        return nullcontext() if self.link is None else self.link.announcing(doing)

    def certain(self, doing: str) -> AbstractContextManager[None]:
        """Return a context in which no rank ends the job before the others have put back what they changed."""
        return nullcontext() if self.link is None else self.link.certain(doing)

    def spread(self, target: Variable) -> None:
        """Give a variable the value of rank 0."""
        if self.link is None or self.link.size == 1:
            return
        own = flattened(target.array)
        counts = [own.size] + [0] * (self.link.size - 1)
        value = self.link.gather(own[: counts[self.rank]], counts, "broadcast")
        target.assign(like(value.reshape(target.shape), target.array))
