"""Scopes of `rmsprop.distribute` that are open: all that an optimizer without replicas has to look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol


class Replicas(Protocol):
    """What an optimizer asks of a strategy; see `rmsprop.distribute.Strategy`."""

    @property
    def shard_state(self) -> bool:
        """Whether each rank keeps its share of the slots only."""
        ...

    @property
    def ranks(self) -> Any:
        """The ranks, as steps and files use them."""
        ...

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of replicas."""
        ...

    def take(self, settings: Any, given: Any, aggregate: bool) -> Any:
        """Take one step of an optimizer together with all other replicas."""

    def share_of_slot(self, parameter: Any, dtype: str, name: str) -> Any:
        """Return this rank's share of a new slot."""


class Context(NamedTuple):
    """A strategy in use: in its scope, across replicas, or as one of them, in `Strategy.run`."""

    strategy: Replicas
    is_replica: bool


entered: list[Context] = []
"""The contexts that have been entered and not left, in any thread."""

current: ContextVar[Context | None] = ContextVar("rmsprop.distribute", default=None)


@contextmanager
def entering(strategy: Replicas, is_replica: bool) -> Iterator[None]:
    """Make a strategy the current one."""
    context = Context(strategy, is_replica)
    token = current.set(context)
    entered.append(context)
    try:
        yield
    finally:
        entered.remove(context)
        current.reset(token)


def entered_strategy() -> Replicas | None:
    """Return the strategy of the scope that this thread is in; None where there is none."""
    context = current.get()
    return None if context is None else context.strategy


def refuse_across_replicas() -> None:
    """Raise ``RuntimeError`` in a scope, outside of `Strategy.run`."""
    context = current.get()
    if context is not None and not context.is_replica:
        raise RuntimeError(
            "apply_gradients() cannot be called in a cross-replica context: call it in strategy.run(...)."
        )
