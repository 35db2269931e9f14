"""Identity of variables: who holds one, and of which other one it is a copy.

Whether anybody but optimizers holds a variable can't be asked. They let it go, and look whether it lives.
"""

import weakref
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

from rmsprop.arrays.libraries import is_array
from rmsprop.backends import backend_of
from rmsprop.locks import living

PATIENCE = 0.05
"""Seconds to wait for a step of another optimizer; what this one knows then counts as held."""


class Holder(Protocol):
    """What holds the variables of an optimizer; see `rmsprop.state.parameters.Parameters`."""

    def holds(self, anchors: AbstractSet[int]) -> bool:
        """Tell whether one of its variables is held by what has one of these identities."""
        ...

    def let_go(self, anchors: AbstractSet[int]) -> None:
        """Hold such variables only weakly."""

    def take_back(self) -> None:
        """Hold all variables again, but those that are gone."""


def release(own: Holder, anchors: AbstractSet[int]) -> None:
    """Let those variables be gone that nobody but optimizers holds.

    Parameters
    ----------
    own : Holder
        Whose they are, and whose lock is held.
    anchors : set of int
        The identities of what has to live for one of them to be held by anybody.
    """
    with ExitStack() as locks:
        holders = [own]
        for state in living():
            other, lock = state.parameters, state.lock
            if other is own or not other.holds(anchors):
                continue
            if hasattr(lock, "acquire") and lock.acquire(timeout=PATIENCE):  # one cut off by a fork has none
                locks.callback(lock.release)
                holders.append(other)
        try:
            for holder in holders:
                holder.let_go(anchors)
        finally:
            for holder in holders:
                holder.take_back()


class Away(NamedTuple):
    """A variable that is held only weakly, with what is needed to hold it again."""

    anchor: weakref.ref[Any]
    """What has to live for the variable to be held by anybody."""
    key: weakref.ref[Any]
    place: Any
    """Where a view lies in the array that it was taken from."""
    name: str
    device: Any


class Original(NamedTuple):
    """A variable that a copy was made of; it is not kept alive."""

    key: Any
    """What finds it: the identity of a `Variable`, the memory of an array."""
    reference: weakref.ref[Any]

    def is_of(self, variable: Any) -> bool:
        """Tell whether a variable with this key is the original, or a view of the same memory."""
        original = self.reference()
        if original is None or original is variable:
            return original is not None
        return is_array(variable) and backend_of(variable).owner(variable, True) is original
