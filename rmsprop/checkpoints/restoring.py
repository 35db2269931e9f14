"""From a file to an optimizer: everything is checked and prepared before anything changes."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Host, as_beside, on_device, unrecorded
from rmsprop.checkpoints import background, records
from rmsprop.checkpoints.errors import CheckpointError
from rmsprop.checkpoints.names import named
from rmsprop.checkpoints.numbers import set_numbers
from rmsprop.checkpoints.records import Checkpoint, Record
from rmsprop.checkpoints.settings import GetConfig, check_same, optimizer_from, settings_of
from rmsprop.formula import SLOTS
from rmsprop.settings.settings import Settings
from rmsprop.state.multipliers import give
from rmsprop.state.parameters import Parameter, refuse_repetition
from rmsprop.state.state import State
from rmsprop.step import slots
from rmsprop.variables.nested import Tree
from rmsprop.variables.observers import tell_tapes
from rmsprop.variables.variable import Variable, described

Change = partial[Any]
"""What brings a prepared value to its place."""


class Waiting:
    """State that was loaded, until there are variables for it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        records = {name: record._replace(value=None) for name, record in checkpoint.records.items()}
        self._checkpoint = checkpoint._replace(records=records)

    @property
    def owners(self) -> list[Record]:
        """The variables that have slots, in the order in which they became known."""
        return self._checkpoint.owners

    def claim(self, settings: Settings, parameters: Sequence[Parameter], variables: Tree) -> None:
        """Give the slots to parameters, by the names of their variables.

        Raises
        ------
        CheckpointError
            If one is missing, or names, shapes or dtypes are others. Nothing has changed then.
        """
        checkpoint, names = self._checkpoint, named(variables)
        owners = {name: record for name, record in checkpoint.records.items() if record.slots or name in names}
        try:
            _match(checkpoint._replace(records=owners), names)
        except CheckpointError as error:
            raise CheckpointError(
                f"The loaded state still waits for its variables: call restore(path, variables) or "
                f"build(variables) with all of them first. {error}"
            ) from None
        by_key = {id(p.key): p for p in parameters}
        _attach(settings, checkpoint, names, {name: by_key[id(variable)] for name, variable in names.items()})


def load(cls: type, path: Any, custom_objects: Mapping[str, type] | None) -> Any:
    """Return the optimizer in a file; see `rmsprop.RMSprop.load`."""
    checkpoint = records.read(path)
    optimizer = optimizer_from(cls, checkpoint.settings, custom_objects, checkpoint.source)
    settings: Settings = optimizer._settings
    set_numbers(settings, checkpoint.iterations, checkpoint.numbers)
    settings.state.waiting = Waiting(checkpoint)
    for _, name in checkpoint.order:
        settings.state.note(name)
    return optimizer


def restore(settings: Settings, get_config: GetConfig, path: Any, variables: Tree) -> None:
    """Restore an optimizer and variables; see `rmsprop.RMSprop.restore`."""
    known = settings.state.parameters
    background.settle(settings.state)
    checkpoint = records.read(path)
    check_same(settings_of(settings, get_config), checkpoint.settings, checkpoint.source)
    names = named(variables)
    _match(checkpoint, names)
    parameters = {
        name: known.obtain(variable, position)
        for position, (name, variable) in enumerate(names.items())
        if checkpoint.records[name].slots or known.find(variable) is not None
    }
    _attach(settings, checkpoint, names, parameters)
    set_numbers(settings, checkpoint.iterations, checkpoint.numbers)


def _match(checkpoint: Checkpoint, names: Mapping[str, Any]) -> None:
    """Refuse variables that are not just those of a checkpoint."""
    source, known = checkpoint.source, checkpoint.records
    for name in [*known, *names]:
        if name not in names or name not in known:
            place = (
                "in the checkpoint, but is not given" if name in known else "given, but is not in the checkpoint"
            )
            raise CheckpointError(
                f"{source}: the variable {name!r} is {place}. It has {_listed(known)}; given {_listed(names)}."
            )


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return (", ".join(map(repr, shown[:8])) or "none") + f" and {len(shown) - 8} more" * (len(shown) > 8)


def _attach(
    settings: Settings, checkpoint: Checkpoint, names: Mapping[str, Any], parameters: Mapping[str, Parameter]
) -> None:
    """Give variables, and an optimizer, what was saved of them; `parameters` are those of them that have slots."""
    state = settings.state
    for name, variable in names.items():
        _check(checkpoint.records[name], variable, checkpoint.source)
    _check_known(state, list(parameters.values()), checkpoint.source)
    state.parameters.name(list(parameters.values()))
    changes = [_value_change(names[r.name], r.value) for r in checkpoint.records.values() if r.value is not None]
    created = []
    for owner, name in checkpoint.order:
        parameter, saved = parameters[owner], checkpoint.records[owner].slots[name]
        slot = parameter.slots.get(name)
        if slot is None:
            slot = _new_slot(settings, parameter, name, saved)
            created.append((parameter, name, slot))
        changes.append(_change(slot, saved))
    for name, parameter in parameters.items():
        changes += _resets(settings, parameter, checkpoint.records[name], checkpoint.source)
    for change in sorted(changes, key=lambda change: change.func in (_copy, _copy_parts)):  # which can't fail
        change()
    if state.waiting is not None:
        state.waiting, state.slot_names = None, []
    for parameter, name, slot in created:
        state.parameters.add(parameter)
        state.add(parameter, name, slot)
    for name, parameter in parameters.items():
        parameter.is_synced = False
        give(state, parameter, checkpoint.records[name].multipliers)


def _check(record: Record, variable: Any, source: str) -> None:
    dtype, shape = dtypes.name_of(variable.dtype), tuple(variable.shape)
    if (dtype, shape) != (record.dtype, record.shape):
        raise CheckpointError(
            f"{source}: the variable {record.name!r} has dtype {record.dtype} and shape {record.shape} there; "
            f"given one of dtype {dtype} and shape {shape}."
        )


def _check_known(state: State, parameters: Sequence[Parameter], source: str) -> None:
    """Check the parameters that are to be restored against those that the optimizer knows."""
    restored = {id(p) for p in parameters}
    refuse_repetition(parameters)
    state.parameters.check_joining(parameters)
    for parameter in state.parameters:
        if id(parameter) not in restored:
            raise CheckpointError(
                f"{source}: the variable {parameter}, of which the optimizer has state, is not there."
            )


def _new_slot(settings: Settings, parameter: Parameter, name: str, saved: Variable) -> Variable:
    """Return a new slot for a parameter, which is not changed."""
    if name in SLOTS:
        return slots.initial(settings, parameter, name)
    array = parameter.variable.array
    with on_device(array):
        zeros = slots.initial_value("zeros", saved.shape, parameter.dtype, array)
    return Variable.around(zeros, slots.labelled(settings, parameter, name), trainable=False)


def _resets(settings: Settings, parameter: Parameter, record: Record, source: str) -> list[Change]:
    """Return what resets the slots that did not yet exist when the checkpoint was saved."""
    later = [name for name in parameter.slots if name not in record.slots]
    for name in later:
        if name not in SLOTS:
            raise CheckpointError(f"{source}: the variable {record.name!r} has no slot {name!r} there.")
    changes = []
    for name in later:
        start = slots.start_of(settings, parameter, name)
        changes.append(
            partial(parameter.slots[name].assign, np.zeros(parameter.shape) if start is None else start)
        )
    return changes


def _value_change(variable: Any, value: Host) -> Change:
    target = variable if isinstance(variable, Variable) else Variable.around(variable, "array")
    if isinstance(target.array, np.ndarray) and not target.array.flags.writeable:
        raise ValueError(
            f"Variable {described(variable)}: the array is read-only; expected one that can be written to."
        )
    return _change(target, Variable.around(value))


def _change(target: Variable, saved: Variable) -> Change:
    """Return what gives a variable the value of another one, after all that can fail has been done."""
    parts = getattr(target, "parts", None)
    if parts is not None:
        given = {name: _beside(part, parts[name]) for name, part in cast("Any", saved).parts.items()}
        return partial(_copy_parts, parts, given)
    if target.shape != saved.shape:
        raise CheckpointError(f"{target.name} has shape {target.shape}; in the checkpoint {saved.shape}.")
    value = saved.array
    if type(target) is Variable and isinstance(target.array, np.ndarray):
        return partial(_copy, target, value)
    if type(target) is Variable:
        if value.dtype.name == "bfloat16":  # which some libraries do not take from NumPy
            value = value.astype(np.float32)
        with unrecorded(target.array):
            value = target._converted(np.require(value, requirements="A"))
    return partial(target.assign, value)


def _beside(saved: Host, part: Array) -> Array:
    """Return an array of NumPy as one of the library of another, on its device."""
    with on_device(part):
        return saved if isinstance(part, np.ndarray) else as_beside(saved, part)


def _copy_parts(parts: Mapping[str, Array], saved: Mapping[str, Array]) -> None:
    for name, part in parts.items():
        with on_device(part):
            part[...] = saved[name]


def _copy(target: Variable, value: Host) -> None:
    tell_tapes(target)
    target.array[...] = value
