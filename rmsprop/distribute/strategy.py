"""Strategies: how the replicas of a program find each other, and what they do together."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import is_array, namespace, on_device, refuse_subclass
from rmsprop.arrays.windows import Windows
from rmsprop.calls import call_of
from rmsprop.distribute.operations import is_mean
from rmsprop.distribute.ranks import Ranks
from rmsprop.distribute.reduction import Reduction, flattened, to_host
from rmsprop.distribute.sharding import new_share
from rmsprop.distribute.steps import take
from rmsprop.scopes import entered_strategy, entering
from rmsprop.settings.settings import Settings
from rmsprop.state.parameters import Parameter
from rmsprop.step.gradients import listed
from rmsprop.step.take import take as take_alone
from rmsprop.variables.nested import Tree, flatten, mapped
from rmsprop.variables.variable import Variable, array_of, described


class Strategy:
    """One replica alone: what `get_strategy` returns outside of all scopes, and the base of all strategies.

    Examples
    --------
    >>> from rmsprop import distribute
    >>> strategy = distribute.Strategy()
    >>> with strategy.scope():
    ...     strategy.run(lambda x: x + 1, args=(2,))
    3
    """

    shard_state = False
    """Whether each rank keeps its share of the slots only."""
    _given: Mapping[str, Any] = MappingProxyType({})
    """The arguments of the constructor."""
    ranks = Ranks()

    def __repr__(self) -> str:
        return call_of(self, type(self), self._given)

    @property
    def rank(self) -> int:
        """The number of this replica, from 0 on."""
        return self.ranks.rank

    @property
    def num_replicas_in_sync(self) -> int:
        """The number of replicas whose gradients are summed."""
        return self.ranks.size

    def scope(self) -> AbstractContextManager[None]:
        """Return the context in which optimizers are made that aggregate over the replicas.

        Examples
        --------
        >>> from rmsprop import RMSprop, distribute
        >>> with distribute.Strategy().scope():
        ...     optimizer = RMSprop()
        """
        return entering(self, is_replica=False)

    def run(self, fn: Callable[..., Any], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Call a function as a replica, as which gradients may be applied; return its result on this rank.

        Parameters
        ----------
        fn : callable
        args : sequence, optional
        kwargs : dict, optional

        Raises
        ------
        Exception
            What `fn` raises. The other ranks then raise `ReplicaError` where they next wait for this one.
        """
        with entering(self, is_replica=True), self.ranks.announcing("strategy.run"):
            return fn(*args, **({} if kwargs is None else kwargs))

    def reduce(self, reduce_op: str, value: Any, axis: int | None = None) -> Any:
        """Return the sum or mean of a value over the replicas, and over an axis of theirs if one is given.

        Parameters
        ----------
        reduce_op : {"sum", "mean"} or ReduceOp
        value : array, number, or nested list, tuple or dict of these
        axis : int, optional
            Of arrays that need not be of the same length on all replicas.

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
        >>> float(distribute.Strategy().reduce("mean", np.array([1.0, 2.0, 6.0]), axis=0))
        3.0
        """
        if axis is None:
            return self.all_reduce(reduce_op, value)
        averages = is_mean(reduce_op)
        local = mapped(lambda x: np.asarray(np.sum(to_host(array_of(x)), axis=axis)), value)
        totals = self.all_reduce("sum", local)
        if not averages:
            return totals
        counts = self.all_reduce("sum", mapped(lambda x: to_host(array_of(x)).shape[axis], value))
        quotients = iter([a / b for a, b in zip(flatten(totals), flatten(counts), strict=True)])
        return mapped(lambda x: next(quotients), value)

    def broadcast(self, variables: Tree) -> None:
        """Give variables the values that they have on rank 0.

        An optimizer does so with variables that it has not seen before.

        Parameters
        ----------
        variables : array or Variable, or nested list, tuple or dict of these

        Raises
        ------
        ReplicaError
            If the variables differ in number, dtype or shape.
        """
        targets = flatten(variables)
        self.ranks.agree("broadcast", [f"variable {k} {described(v)}" for k, v in enumerate(targets)])
        for target in targets:
            self.ranks.spread(target if isinstance(target, Variable) else Variable.around(target, "array"))

    def check_synced(self, variables: Tree) -> None:
        """Check that variables have the same values, to the bit, on all ranks.

        Parameters
        ----------
        variables : array or Variable, or nested list, tuple or dict of these

        Raises
        ------
        ReplicaError
            On all ranks, naming those that differ from rank 0, and in which variable.

        Examples
        --------
        >>> import numpy as np
        >>> from rmsprop import distribute
        >>> distribute.Strategy().check_synced([np.ones(3)])    # of one replica
        """
        terms = [
            f"variable {k} {described(v)} of digest {hashlib.blake2b(_content(v), digest_size=8).hexdigest()}"
            for k, v in enumerate(flatten(variables))
        ]
        self.ranks.agree("check_synced", terms)

    def take(self, settings: Settings, given: Any, aggregate: bool) -> Variable | None:
        """Take a step of an optimizer, together with all other ranks; see `rmsprop.RMSprop.apply_gradients`."""
        if self.ranks.size == 1:
            return take_alone(settings, listed(given), aggregate)
        return take(self.ranks, self.shard_state, settings, given, aggregate)

    def share_of_slot(self, parameter: Parameter, dtype: str, name: str) -> Variable:
        """Return this rank's share of a new slot, of zeros."""
        return new_share(cast("Reduction", self.ranks.reduction), parameter, dtype, name)

    def all_reduce(self, reduce_op: str, value: Any) -> Any:
        """Return the sum or mean over the replicas; see `rmsprop.distribute.ReplicaContext.all_reduce`."""
        leaves: list[Any] = []
        with self.ranks.announcing("all_reduce"):
            averages = is_mean(reduce_op)
            mapped(lambda leaf: leaves.append(_as_array(leaf)), value)
        terms = [described_gradient(k, leaf) for k, leaf in enumerate(leaves)]
        terms.append(f"the structure {mapped(lambda leaf: 0, value)}")
        self.ranks.agree(f"all_reduce({'mean' if averages else 'sum'})", terms)
        reduction = self.ranks.reduction
        sums = leaves if reduction is None or self.ranks.size == 1 else reduction.sums(leaves)
        divisor = self.num_replicas_in_sync if averages else 1
        results = iter([_result(total, leaf, divisor) for total, leaf in zip(sums, leaves, strict=True)])
        return mapped(lambda leaf: next(results), value)

    def __deepcopy__(self, memo: Any) -> "Strategy":
        return self  # a connection can't be copied

    def __reduce__(self) -> Any:
        return entered_strategy, ()  # an unpickled optimizer belongs to the scope that it is in


def described_gradient(position: int, value: Any) -> str:
    """Return how messages call a value that is reduced, with all that the ranks must have in common."""
    if isinstance(value, IndexedSlices):
        dtype, shape = dtypes.name_of(value.values.dtype), tuple(value.values.shape[1:])
        return f"value {position} (rows of {dtype}, shape {shape}, sparse)"
    return f"value {position} ({dtypes.name_of(value.dtype)}, shape {tuple(value.shape)})"


def _as_array(value: Any) -> Any:
    """Return a value in the form in which it can be added up."""
    value = array_of(value)
    if isinstance(value, IndexedSlices):
        if len(value.values) != len(value.indices):
            raise ValueError(f"IndexedSlices has {len(value.values)} values and {len(value.indices)} indices.")
        return value
    if isinstance(value, Windows):
        raise TypeError(
            "Windows can't be reduced; expected an array, or the IndexedSlices of windows.indexed(shape)."
        )
    array = value if is_array(value) else np.asarray(value)
    if isinstance(array, np.ndarray):
        refuse_subclass(array, "what is reduced")
    if dtypes.name_of(array.dtype) not in dtypes.COMPUTE and not _is_numeric(array):
        raise TypeError(f"only arrays and numbers can be reduced; given {value!r}.")
    return array


def _is_numeric(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return array.dtype.kind in "iufc"
    return bool(namespace(array).isdtype(array.dtype, "numeric"))


def _result(total: Any, given: Any, divisor: int) -> Any:
    """Return a sum, or with a divisor a mean, in the dtype of what was given, in memory of its own."""
    if isinstance(total, IndexedSlices):
        return IndexedSlices(_result(total.values, given.values, divisor), total.indices, given.dense_shape)
    xp = namespace(total)
    with on_device(total), np.errstate(all="ignore"):  # a sum of halves may exceed them
        mean = total if divisor == 1 else total / divisor
        is_whole = divisor > 1 and xp.isdtype(given.dtype, "integral")
        return xp.asarray(mean, dtype=mean.dtype if is_whole else given.dtype, copy=True)


def _content(variable: Any) -> bytes:
    return flattened(array_of(variable)).tobytes()
