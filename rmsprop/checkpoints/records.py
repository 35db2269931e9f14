"""Variables and their slots as a file has them, in the terms of an optimizer."""

import json
import math
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Host
from rmsprop.backends import backend_of
from rmsprop.checkpoints import layout
from rmsprop.checkpoints.errors import CheckpointError
from rmsprop.checkpoints.layout import LONGEST_REASON, Content
from rmsprop.checkpoints.numbers import check_numbers
from rmsprop.checkpoints.settings import LARGEST
from rmsprop.checkpoints.tensors import array_of
from rmsprop.formula import NEUTRAL, SLOTS, Multipliers
from rmsprop.settings.checks import STATE_DTYPES, number
from rmsprop.state.iterations import check_count
from rmsprop.variables.variable import Variable


class Record(NamedTuple):
    """A variable and its slots, as they were saved."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    value: Host | None
    """Its value, if that was saved, too."""
    slots: dict[str, Variable]
    multipliers: Multipliers = NEUTRAL


class Checkpoint(NamedTuple):
    """What a file says."""

    source: str
    settings: dict[str, Any]
    numbers: dict[str, Any]
    iterations: int
    records: dict[str, Record]
    order: list[tuple[str, str]]
    """Names of variable and slot, in the order in which slots were created."""

    @property
    def owners(self) -> list[Record]:
        """Those of the variables that have slots, in the order in which they became known."""
        return [self.records[name] for name in dict.fromkeys(owner for owner, _ in self.order)]


def read(path: Any) -> Checkpoint:
    """Return what a file says; its arrays are views of one, which has the size of the file.

    Raises
    ------
    CheckpointError
        If it is no sound checkpoint.
    OSError
        If it can't be read.
    """
    content = layout.read(path)
    try:
        return _checkpoint(content)
    except KeyError as error:
        raise CheckpointError(f"{content.source} is no checkpoint of an optimizer: it lacks {error}.") from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = str(error)[:LONGEST_REASON]
        raise CheckpointError(f"{content.source} is no checkpoint of an optimizer: {reason}") from error


def _checkpoint(content: Content) -> Checkpoint:
    settings, numbers, multipliers = _told(content.notes["optimizer"])
    records = {}
    for note, text in content.notes.items():
        if note.startswith("variables/"):
            name, kind = note.removeprefix("variables/"), layout.kind_of(text)
            records[name] = Record(name, kind.dtype, kind.shape, None, {})
    for name, given in multipliers.items():
        records[name] = records[name]._replace(multipliers=_multipliers(given))
    arrays = {name: array_of(data, content.kinds[name]) for name, data in content.data.items()}
    count = _count(arrays.pop("iterations"))
    order: dict[tuple[str, str], dict[str, Host]] = {}
    for name, array in arrays.items():
        part, _, place = name.partition("/")
        if part == "variables":
            records[place] = records[place]._replace(value=array)
        else:
            slot, _, owner = place.partition("/")
            order.setdefault((owner, unquote(slot)), {})[part] = array
    for (owner, slot), parts in order.items():
        records[owner].slots[slot] = _slot(records[owner], slot, parts, settings)
    return Checkpoint(content.source, settings, numbers, count, records, list(order))


def _multipliers(given: Any) -> Multipliers:
    """Return the multipliers of a variable, after checking that they can be that."""
    learning_rate, weight_decay = given
    return Multipliers(number("lr_mult", learning_rate), number("wd_mult", weight_decay, 0.0))


def _told(text: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the settings of an optimizer, the numbers that it remembers, and the multipliers of variables."""
    if len(text) > LARGEST:
        raise ValueError(f"its settings take {len(text)} bytes.")
    told = json.loads(text)
    settings, numbers, multipliers = told["settings"], told["numbers"], told.get("multipliers", {})
    if not isinstance(settings, dict) or not isinstance(multipliers, dict):
        raise ValueError(f"its settings are {settings!r}, and its multipliers {multipliers!r}.")
    check_numbers(numbers, settings)
    return settings, numbers, multipliers


def _count(array: Host) -> int:
    if array.dtype != np.int64:
        raise ValueError(f"iterations must be int64; given {array!r}.")
    check_count(array, "iterations")
    return int(array)


def _slot(record: Record, name: str, parts: dict[str, Host], settings: dict[str, Any]) -> Variable:
    """Return a slot, after checking that it is what the settings demand."""
    label = f"{settings['name']}/{record.name}/{name}"
    if name in SLOTS and SLOTS[name].is_compact and settings.get("state_dtype") is not None:
        return _compact(record, name, parts, settings, label)
    ((part, array),) = parts.items()
    dtype, shape = record.dtype, array.shape
    if name in SLOTS:
        dtype, shape = _dtype(record, name, settings), record.shape
    if part != "slots" or array.shape != shape or not _is_called(array, dtype):
        raise ValueError(
            f"{part} {label} has {array.dtype} and shape {array.shape}; expected {dtype}, shape {shape}."
        )
    if name in SLOTS:
        SLOTS[name].check(array, label)
    return Variable.around(array, label, trainable=False)


def _is_called(array: Host, dtype: str) -> bool:
    return array.dtype.name == dtype or (dtype == "bfloat16" and array.dtype == np.float32)


def _dtype(record: Record, name: str, settings: dict[str, Any]) -> str:
    """Return the dtype of a slot that steps use."""
    return SLOTS[name].dtype(record.dtype, settings.get("complex_as_real") is True)


def _compact(record: Record, name: str, parts: dict[str, Host], settings: dict[str, Any], label: str) -> Variable:
    """Return a slot whose numbers are encoded, around what the file has of it."""
    state_dtype = settings["state_dtype"]
    if state_dtype not in STATE_DTYPES or record.dtype not in dtypes.COMPUTE:
        raise ValueError(f"{label} can't be of {state_dtype!r} for {record.dtype}.")
    dtype = _dtype(record, name, settings)
    size = math.prod(record.shape) * (2 if dtypes.is_complex(dtype) else 1)
    if [array.shape for array in parts.values()][:1] != [(size,)]:  # or it might be a huge one
        raise ValueError(f"{label} has not the size of its variable, which has shape {record.shape}.")
    like = np.broadcast_to(np.zeros((), dtypes.COMPUTE[record.dtype]), record.shape)
    slot: Any = backend_of(like).compact_slot(like, name, dtype, state_dtype, label)
    expected = {part: (array.dtype, array.shape) for part, array in slot.parts.items()}
    given = {part: (array.dtype, array.shape) for part, array in parts.items()}
    if given != expected:
        raise ValueError(f"{label} has {given}; expected {expected}.")
    slot.parts = parts
    return slot  # type: ignore[no-any-return]
