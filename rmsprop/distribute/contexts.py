"""Contexts: the functions of ``tf.distribute`` that tell who is in the scope of a strategy."""

from typing import Any, cast

from rmsprop.distribute.strategy import Strategy
from rmsprop.scopes import current


class ReplicaContext:
    """What a replica knows of the others, inside of `Strategy.run`; see `get_replica_context`."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def __repr__(self) -> str:
        return f"ReplicaContext(strategy={self.strategy!r})"

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of replicas whose gradients are summed."""
        return self.strategy.num_replicas_in_sync

    @property
    def replica_id_in_sync_group(self) -> int:
        """The number of this replica, from 0 on: its rank."""
        return self.strategy.rank

    def all_reduce(self, reduce_op: str, value: Any) -> Any:
        """Return the sum or the mean of the replicas' values, the same to the bit on each of them.

        Parameters
        ----------
        reduce_op : {"sum", "mean"} or ReduceOp
        value : array, number, IndexedSlices or nested list, tuple or dict of these
            Of the same structure, shapes and dtypes on all replicas. Sparse gradients stay sparse.

        Returns
        -------
        object
            New arrays, in the structure of `value`.

        Raises
        ------
        ValueError
            If `reduce_op` is another word.
        ReplicaError
            If the replicas' values do not go together, or one of them is missing.

        Examples
        --------
        >>> import numpy as np
        >>> from rmsprop import distribute
        >>> distribute.get_replica_context().all_reduce("sum", [np.ones(2)])    # of one replica
        [array([1., 1.])]
        """
        return self.strategy.all_reduce(reduce_op, value)


def get_strategy() -> Strategy:
    """Return the strategy of the current scope; outside of all scopes, one with a single replica.

    Examples
    --------
    >>> from rmsprop import distribute
    >>> distribute.get_strategy().num_replicas_in_sync
    1
    """
    context = current.get()
    return Strategy() if context is None else cast("Strategy", context.strategy)


def has_strategy() -> bool:
    """Tell whether a scope is open.

    Examples
    --------
    >>> from rmsprop import distribute
    >>> distribute.has_strategy()
    False
    """
    return current.get() is not None


def in_cross_replica_context() -> bool:
    """Tell whether a scope is open and this is none of its replicas, so that no gradients can be applied.

    Examples
    --------
    >>> from rmsprop import distribute
    >>> with distribute.Strategy().scope():
    ...     distribute.in_cross_replica_context()
    True
    """
    context = current.get()
    return context is not None and not context.is_replica


def get_replica_context() -> ReplicaContext | None:
    """Return the context of this replica, or None in a scope outside of `Strategy.run`.

    Outside of all scopes, it is that of a single replica.

    Examples
    --------
    >>> from rmsprop import distribute
    >>> distribute.get_replica_context().num_replicas_in_sync
    1
    """
    return None if in_cross_replica_context() else ReplicaContext(get_strategy())
