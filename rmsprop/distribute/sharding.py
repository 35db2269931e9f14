"""Slots of which each rank keeps its share, and the steps that update them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, device, is_array, is_on_host, on_device
from rmsprop.distribute.buckets import shares
from rmsprop.distribute.link import Link
from rmsprop.distribute.reduction import Reduction, flattened, like, stretch, to_host
from rmsprop.state.parameters import Parameter
from rmsprop.step.journal import Journal
from rmsprop.variables.operators import value_of
from rmsprop.variables.variable import Variable


class ShardedSlot(Variable):
    """A slot of which this rank holds a share: stretch `own` of the elements in C order.

    To read all of it, by `array` or `numpy()`, is collective: all ranks do it, in the same order. `assign` takes a
    whole value, and keeps the share of it.
    """

    __slots__ = ("_dtype", "_link", "_shape", "own", "start")

    def __init__(self, link: Link, shape: tuple[int, ...], own: Array, start: int, name: str) -> None:
        self._link, self._shape, self.own, self.start, self.name = link, shape, own, start, name
        self.trainable, self.constraint = False, None

    @property
    def array(self) -> Array:
        """The whole slot, gathered from all ranks."""
        bounds = shares(math.prod(self._shape), self._link.size)
        whole = self._link.gather(flattened(self.own), np.diff(bounds), f"get {self.name}")
        return like(whole.reshape(self._shape), self.own)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        return self._shape

    @property
    def dtype(self) -> Any:
        """Dtype of the elements."""
        return self.own.dtype

    def assign(self, value: Any) -> "ShardedSlot":
        """Replace the value by a whole one; see `Variable.assign`."""
        value = value_of(value)
        whole = Variable.around(np.empty(self._shape, self.dtype), self.name)
        whole.assign(to_host(value) if is_array(value) else value)
        own = whole.array.reshape(-1)[self.start : self.start + len(self.own)]
        with on_device(self.own):
            self.own[...] = like(own, self.own)
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("an optimizer with sharded state can't be copied or pickled: use get_weights().")

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self.__reduce__()

    def __repr__(self) -> str:
        return f"ShardedSlot({self.name!r}, shape {self._shape}, elements from {self.start} on {self.own!r})"


def new_share(reduction: Reduction, parameter: Parameter, dtype: str, name: str) -> ShardedSlot:
    """Return this rank's share of a new slot, of zeros."""
    check_shardable(reduction, parameter)
    link, array = reduction.link, parameter.variable.array
    start, stop = shares(array.size, link.size)[link.rank : link.rank + 2]
    own = parameter.backend.zeros(stretch(array, start, stop), dtype)
    return ShardedSlot(link, parameter.shape, own, start, name)


class Block(NamedTuple):
    """Neighbouring rows of a variable, or neighbouring elements of one row; of a vector, elements."""

    row: int
    rows: int
    column: int
    columns: int


def blocks(shape: tuple[int, ...], start: int, stop: int) -> list[Block]:
    """Return the at most three blocks that a stretch of the elements of an array consists of."""
    width = math.prod(shape[1:])
    if stop == start:
        return []
    (row, column), (last, end) = divmod(start, width), divmod(stop, width)
    if row == last:
        return [Block(row, 1, column, end - column)]
    head = [Block(row, 1, column, width - column)] * (column > 0)
    first = row + len(head)
    body = [Block(first, last - first, 0, width)] * (last > first)
    return [*head, *body, *[Block(last, 1, 0, end)] * (end > 0)]


class Share(NamedTuple):
    """The share that this rank has of a parameter, as parameters of its own.

    They are in the same memory, unless the elements of the variable lie in another order: then there is a copy of
    them, to be made in each step.
    """

    slots: int
    """How many slots there were."""
    start: int
    stop: int
    whole: Parameter
    """All of the share, flat, for dense gradients."""
    is_copy: bool
    former: tuple[Parameter, ...]
    """What was `whole` before slots were added: lest a new one gets its identity, by which plans are found."""
    blocks: list[tuple[Block, Parameter]]
    """The same by rows, for sparse gradients."""
    journal: Journal
    """Of all of the share."""


def share_of(parameter: Parameter, link: Link) -> Share:
    """Return this rank's share of a parameter, made anew if slots have been added."""
    kept = parameter.plan
    if not isinstance(kept, Share) or kept.slots != len(parameter.slots):
        former = (kept.whole, *kept.former) if isinstance(kept, Share) else ()
        kept = parameter.plan = _share(parameter, link, former)
    return kept


def _share(parameter: Parameter, link: Link, former: tuple[Parameter, ...]) -> Share:
    array = parameter.variable.array
    start, stop = shares(array.size, link.size)[link.rank : link.rank + 2]
    own = stretch(array, start, stop)
    slots = {name: slot.own for name, slot in parameter.slots.items() if isinstance(slot, ShardedSlot)}
    width = math.prod(parameter.shape[1:])

    def part(begin: int, end: int, shape: tuple[int, ...]) -> Parameter:
        def cut(elements: Array) -> Variable:
            return Variable.around(elements[begin - start : end - start].reshape(shape), parameter.variable.name)

        own_slots = {name: cut(elements) for name, elements in slots.items()}
        return Parameter(cut(own), True, own_slots, multipliers=parameter.multipliers)

    parts = []
    for block in blocks(parameter.shape, start, stop) if parameter.shape else []:
        begin = block.row * width + block.column
        shape = (block.rows, block.columns) if len(parameter.shape) > 1 else (block.rows,)
        parts.append((block, part(begin, begin + block.rows * block.columns, shape)))
    whole = part(start, stop, (stop - start,))
    is_copy, journal = not array.flags.c_contiguous, Journal([whole])
    return Share(len(parameter.slots), start, stop, whole, is_copy, former, parts, journal)


def refresh(share: Share, parameter: Parameter) -> None:
    """Copy what this rank is going to update of a variable, if it updates a copy."""
    if share.is_copy:
        own = share.whole.variable.array
        with on_device(own):
            own[...] = stretch(parameter.variable.array, share.start, share.stop)


def check_shardable(reduction: Reduction, parameter: Parameter) -> None:
    """Raise ``TypeError`` or ``ValueError`` if a variable can't be updated in shares."""
    array = parameter.variable.array
    if not reduction.divides(array):
        place = "" if is_on_host(array) else f" on {device(array)}"
        raise TypeError(
            f"Variable {parameter}: shard_state=True needs {reduction.divided}; given {type(array)}{place}."
        )
    if isinstance(array, np.ndarray) and not array.flags.c_contiguous:
        raise ValueError(f"Variable {parameter}: shard_state=True needs arrays in C order, without gaps.")
    if parameter.variable.constraint is not None:
        raise ValueError(f"Variable {parameter}: shard_state=True excludes constraints, which need all elements.")


def rows_of(gradient: IndexedSlices, block: Block, shape: tuple[int, ...]) -> IndexedSlices:
    """Return the part of a sparse gradient that concerns a block, which has this shape as a parameter."""
    chosen = (gradient.indices >= block.row) & (gradient.indices < block.row + block.rows)
    values = gradient.values[chosen]
    if len(shape) > 1:
        values = values.reshape(len(values), math.prod(values.shape[1:]))[
            :, block.column : block.column + block.columns
        ]
    return IndexedSlices(np.ascontiguousarray(values), gradient.indices[chosen] - block.row)


def exchange_rows(link: Link, parameter: Parameter, rows: Array) -> Callable[[], None]:
    """Send this rank's part of some rows of a variable to all others; return what writes the parts received."""
    places: list[tuple[int, tuple[Array, slice]]] = []
    table = parameter.variable.array.reshape(parameter.shape[0], math.prod(parameter.shape[1:]))
    counts, bounds = [0] * link.size, shares(table.size, link.size)
    for rank in range(link.size):
        for row, number, column, columns in blocks(parameter.shape, *bounds[rank : rank + 2]):
            chosen = rows[(rows >= row) & (rows < row + number)]
            places.append((rank, (chosen, slice(column, column + columns))))
            counts[rank] += len(chosen) * columns
    own = [table[place].reshape(-1) for rank, place in places if rank == link.rank]
    everything = link.gather(np.concatenate([*own, table[:0].reshape(-1)]), counts, "an exchange of rows")

    def write() -> None:
        begin = 0
        for _, (chosen, columns) in places:
            width = columns.stop - columns.start
            end = begin + len(chosen) * width
            table[chosen, columns] = everything[begin:end].reshape(len(chosen), width)
            begin = end

    return write
