"""Rows: the update of those that sparse gradients list, each after all of its gradients have been added up.

All gradients of a device are sorted together, and those for contiguous variables of one dtype update these in one
launch, so that their number does not matter. All memory for it is kept from one step to the next.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import cupy
import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, Host
from rmsprop.arrays.rows import MANY
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters, Numbers
from rmsprop_cupy import kernels, row_kernels, sorting, updates
from rmsprop_cupy.counters import Misses
from rmsprop_cupy.kept import Kept
from rmsprop_cupy.kernels import Change
from rmsprop_cupy.launches import Launch, paired, scalars
from rmsprop_cupy.source import Variant
from rmsprop_cupy.streams import Column, hold


class Rows(NamedTuple):
    """A sparse gradient, and what it updates."""

    position: int
    """Where the variable stands in the step's list."""
    parameter: Updatable
    gradient: IndexedSlices
    factors: Array | None
    variant: Variant
    tables: list[Array]
    """The variable and those of its slots that the kernel updates; none where the gradient is only sorted."""
    numbers: Numbers


class Memory:
    """What the sort works in, on the current device: it only grows, by factors."""

    def __init__(self) -> None:
        self.column: Column | None = None
        self._arrays: dict[str, Array] = {}

    def array(self, name: str, size: int, dtype: Any) -> Array:
        """Return an array of at least this size."""
        array = self._arrays.get(name)
        if array is None or array.size < size:
            hold(array)
            array = self._arrays[name] = cupy.empty(max(2 * size, 512), dtype)
        return array

    def table(self, words: Host) -> Array:
        """Bring the table of gradients to the device."""
        if self.column is None or self.column.array.size != words.size:
            hold(self.column)
            self.column = Column(words.size)
        return self.column.write(words)


class Plan(NamedTuple):
    """Gradients of one device, in the order of their table, and all sizes."""

    listed: list[Rows]
    values: list[Array]
    """Their values, without gaps."""
    groups: list[range]
    """Those that are updated together."""
    elements: int
    tiles: int
    low: int
    high: int


class Listing(NamedTuple):
    """A sparse gradient after the sort: its values, its elements in order, and the bits of their positions."""

    values: Array
    elements: Array
    low: int

    def launch(self, variant: Variant, change: Change, height: int, given: tuple[Any, ...]) -> Launch:
        """Return the launch that changes each listed element of a variable of any layout, by its sum."""
        count = len(self.values)
        sizes = count, self.low, self.values.size // count, height
        kernel = row_kernels.strided_kernel(variant, kernels.OPTIONS, change)
        arguments = self.values, self.elements, *sizes, *given
        return Launch(self.values.device, kernel, arguments, {"size": self.values.size})


class Ordered(NamedTuple):
    """What sorts the elements of gradients, and where they are then."""

    launches: list[Launch]
    plan: Plan
    table: Array
    elements: Array
    words: Host
    blocks: list[int]
    """How many blocks of threads sum up and update each group."""

    def listing(self, i: int) -> Listing:
        """Return one of the gradients, in the order of the plan."""
        return Listing(self.plan.values[i], self.elements[int(self.words[i, FIRST]) :], self.plan.low)


def launches(listed: Sequence[Rows], hyper: Hyperparameters, kept: Kept) -> list[Launch]:
    """Return the launches for sparse gradients of the current device, none of which is empty."""
    ordered = _ordered(listed, hyper, kept)
    plan, made = ordered.plan, ordered.launches
    for which in range(len(plan.groups)):
        made += _group(ordered, which, hyper, kept)
    for i in range(sum(map(len, plan.groups)), len(plan.listed)):
        rows = plan.listed[i]
        factor = () if rows.factors is None else (rows.factors, rows.position)
        given = *factor, *scalars(rows.variant, rows.numbers, hyper.clipvalue), *rows.tables
        change = kernels.full_change(rows.variant)
        made.append(ordered.listing(i).launch(rows.variant, change, rows.parameter.shape[0], given))
    return made


def listings(
    listed: Sequence[Rows], hyper: Hyperparameters, kept: Kept
) -> tuple[list[Launch], dict[int, Listing]]:
    """Return the launches that sort gradients of the current device, and these by their positions in the step."""
    ordered = _ordered(listed, hyper, kept)
    return ordered.launches, {rows.position: ordered.listing(i) for i, rows in enumerate(ordered.plan.listed)}


def _ordered(listed: Sequence[Rows], hyper: Hyperparameters, kept: Kept) -> Ordered:
    """Plan the sort of gradients of the current device, whose table is brought there."""
    plan = _planned(listed, hyper)
    memory = kept.rows_of_device(Memory)
    buffers = [memory.array(f"elements {k}", plan.elements, np.uint64) for k in range(2)]
    counts = memory.array("counts", plan.tiles << sorting.DIGIT, np.uint32)
    misses = [_misses(rows.parameter) for rows in plan.listed]
    words, blocks = _words(plan, memory)
    table, device = memory.table(words.reshape(-1)), cupy.cuda.Device()
    sizes = len(plan.listed), plan.tiles, plan.low, plan.high
    made = sorting.launches(device, table, buffers, counts, sizes)
    made[0] = made[0]._replace(then=partial(_record, misses), alive=plan)
    return Ordered(made, plan, table, buffers[sorting.passes(plan.high) % 2], words, blocks)


def _record(misses: list[Misses]) -> None:
    for each in misses:
        each.record()


def _misses(parameter: Updatable) -> Misses:
    parameter.notes = misses = parameter.notes or Misses()
    return misses


COUNT, FIRST, WIDTH, SUMS, FIRST_SUMS, FIRST_BLOCK, TABLES = [
    sorting.COLUMNS.index(name)
    for name in ("COUNT", "FIRST", "WIDTH", "SUMS", "FIRST_SUMS", "FIRST_BLOCK", "TABLES")
]


def _planned(listed: Sequence[Rows], hyper: Hyperparameters) -> Plan:
    """Put contiguous variables of one dtype together, before all others, and add sizes up."""
    alike: dict[str, list[Rows]] = {}
    others: list[Rows] = []
    for rows in listed:
        is_flat = bool(rows.tables) and all([table.flags.c_contiguous for table in rows.tables])
        (alike.setdefault(rows.variant.dtype, []) if is_flat else others).append(rows)
    ordered: list[Rows] = []
    groups: list[range] = []
    for members in alike.values():
        groups.append(range(len(ordered), len(ordered) + len(members)))
        ordered += members
    ordered += others
    values = [cupy.ascontiguousarray(paired(rows.gradient.values, hyper)) for rows in ordered]
    counts = [len(each) for each in values]
    tiles = sum([-(-count // sorting.TILE) for count in counts])
    high = max([rows.parameter.shape[0] for rows in ordered]).bit_length()  # also of the height, for rows beyond
    return Plan(ordered, values, groups, sum(counts), tiles, max(counts).bit_length(), high)


def _words(plan: Plan, memory: Memory) -> tuple[Host, list[int]]:
    """Return the table of gradients, and how many blocks of threads sum up and update each group."""
    words = np.zeros((len(plan.listed), sorting.WORDS), np.int64)
    first = tile = 0
    for own, rows, values in zip(words, plan.listed, plan.values, strict=True):
        indices, count = rows.gradient.indices, len(values)
        kind = sorting.KINDS.index(indices.dtype.name)
        own[:SUMS] = (
            indices.data.ptr, indices.strides[0], kind, count, rows.parameter.shape[0], first, tile,
            rows.parameter.notes.array.data.ptr, values.data.ptr, values.size // count, rows.position,
        )  # fmt: skip
        own[TABLES : TABLES + len(rows.tables)] = [table.data.ptr for table in rows.tables]
        first, tile = first + count, tile - (-count // sorting.TILE)
    return words.view(np.uint64), _add_sums(words, plan, memory)


def _add_sums(words: Host, plan: Plan, memory: Memory) -> list[int]:
    """Fill in where sums lie, and where blocks of threads start; return how many blocks sum up each group."""
    counts, widths = words[:, COUNT], words[:, WIDTH]
    summed, blocks = counts // MANY * widths, []
    summed[sum(map(len, plan.groups)) :] = 0  # of others, a thread adds up all blocks of a row
    sizes = np.array([_number(rows.variant).itemsize for rows in plan.listed])
    bytes_before = np.cumsum([0, *(-(-summed * sizes // ALIGNED) * ALIGNED)])
    words[:, SUMS] = bytes_before[:-1] + memory.array("sums", int(bytes_before[-1]), np.uint8).data.ptr
    for members in plan.groups:
        part = slice(members.start, members.stop)
        for column, threads in ((FIRST_SUMS, summed[part]), (FIRST_BLOCK, counts[part] * widths[part])):
            ends = np.cumsum([0, *-(-threads // kernels.THREADS)])
            words[part, column] = ends[:-1]
            blocks.append(int(ends[-1]))
    return blocks


ALIGNED = 16
"""Bytes at whose multiples the sums of a gradient begin."""


def _number(variant: Variant) -> Any:
    """Return the dtype of sums."""
    real = kernels.REAL[variant.dtype]
    return np.result_type(real, np.complex64) if variant.dtype.startswith("complex") else np.dtype(real)


def _group(ordered: Ordered, which: int, hyper: Hyperparameters, kept: Kept) -> list[Launch]:
    """Return the launches that update contiguous variables of one dtype."""
    plan, table = ordered.plan, ordered.table
    members, blocks = plan.groups[which], ordered.blocks[2 * which : 2 * which + 2]
    rows = plan.listed[members.start]
    variant = rows.variant._replace(multiplied=kept.multipliers is not None)
    given = {
        "table": table.data.ptr + members.start * sorting.WORDS * table.itemsize,
        "elements": ordered.elements.data.ptr, "gradients": len(members), "low": plan.low,
    }  # fmt: skip
    if rows.factors is not None:
        given["factors"] = rows.factors.data.ptr
    if kept.multipliers is not None:
        own = kept.scalars_of_device()
        own.write(hyper, kept.multipliers)
        given["numbers"] = own.array(variant).data.ptr
    made = updates.structure(row_kernels.fields(variant), given)
    updates.write(made, variant, rows.numbers, hyper.clipvalue)
    device, threads, arguments = cupy.cuda.Device(), (kernels.THREADS,), (updates.plain(made),)
    counted = zip((row_kernels.SUMS, row_kernels.UPDATE), blocks, strict=True)
    return [
        Launch(device, row_kernels.kernel(variant, name), ((count,), threads, arguments))
        for name, count in counted
        if count
    ]
