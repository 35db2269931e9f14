"""From an optimizer to a file."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Host, to_numpy
from rmsprop.checkpoints import background
from rmsprop.checkpoints.atomic import replacing
from rmsprop.checkpoints.background import Saving
from rmsprop.checkpoints.layout import Tensor, text_of, write
from rmsprop.checkpoints.names import named
from rmsprop.checkpoints.numbers import numbers_of
from rmsprop.checkpoints.settings import GetConfig, settings_of
from rmsprop.checkpoints.tensors import Kind, itemsize_of
from rmsprop.formula import NEUTRAL
from rmsprop.settings.settings import Settings
from rmsprop.state.state import State
from rmsprop.variables.nested import Tree
from rmsprop.variables.variable import Variable, array_of


def save(
    settings: Settings,
    get_config: GetConfig,
    path: str | os.PathLike[str],
    variables: Tree,
    wait: bool,
    then: Callable[[], None] | None = None,
) -> Saving | None:
    """Save an optimizer, see `rmsprop.RMSprop.save`; who has written the file calls `then`."""
    path = os.path.abspath(os.fsdecode(path))  # whatever directory the program goes to meanwhile
    background.settle(settings.state)
    strategy = settings.state.strategy
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        with strategy.ranks.announcing("save"):
            if not wait:
                raise ValueError("wait=False can't be used on several replicas, which wait for each other.")
            if settings.state.accumulated.array:
                raise ValueError("each replica has accumulated gradients of its own: save after a step.")
            notes, tensors = _content(settings, get_config, variables)
        _save_once(strategy.ranks, path, notes, tensors, then)
        return None
    notes, tensors = _content(settings, get_config, variables)
    if wait:
        _write(path, notes, tensors, _arrays(tensors), then)
        return None
    copies = _snapshot(tensors)
    told = [tensor._replace(read=_read) for tensor in tensors]  # which do not hold the variables meanwhile
    return background.start(settings.state, partial(_write, path, notes, told, copies, then))


def _save_once(
    ranks: Any, path: str, notes: dict[str, str], tensors: list[Tensor], then: Callable[[], None] | None
) -> None:
    """Save what all ranks have together, by rank 0; shares of slots are gathered one after the other."""
    ranks.agree("save", [f"{len(tensors)} arrays"])  # all have seen which files there are, too
    with ranks.announcing("the end of a save"):
        arrays = _arrays(tensors)
        try:
            if ranks.rank == 0:
                _write(path, notes, tensors, arrays, then)
        finally:
            for _ in arrays:  # the other ranks gather, too
                pass
    ranks.agree("the end of a save", [])


def _write(
    path: str,
    notes: dict[str, str],
    tensors: list[Tensor],
    arrays: Iterable[Host],
    then: Callable[[], None] | None,
) -> None:
    with replacing(path) as file:
        write(file, notes, tensors, arrays)
    if then is not None:
        then()


def _arrays(tensors: list[Tensor]) -> Iterator[Host]:
    return (tensor.read(False) for tensor in tensors)


def _read(copy: bool) -> Host:
    raise RuntimeError("it has been read already.")


def _snapshot(tensors: list[Tensor]) -> list[Host]:
    return [tensor.read(True) for tensor in tensors]


def _content(settings: Settings, get_config: GetConfig, variables: Tree) -> tuple[dict[str, str], list[Tensor]]:
    """Return what a file is to say, without a copy of it."""
    state = settings.state
    if state.waiting is not None:
        raise RuntimeError(
            "the loaded state has no variables yet, and is saved as it is: call build(var_list) first."
        )
    parameters = {id(p): p for p in state.parameters}
    for parameter in parameters.values():
        if parameter.is_gone:
            raise ValueError(
                f"Variable {parameter} has state, but nobody holds it any more: call rebind or forget before."
            )
    known = [p.key for p in parameters.values()]
    names = named(known if variables is None else variables)
    owners = _owners(state, names)
    missing = [str(p) for i, p in parameters.items() if i not in owners]
    if missing:
        raise ValueError(f"variables must be all that the optimizer has state of, or None; missing {missing[0]}.")
    for parameter in parameters.values():
        parameter.report_misses()
    told: dict[str, Any] = {"settings": settings_of(settings, get_config), "numbers": numbers_of(settings)}
    multiplied = {owners[i]: p.multipliers for i, p in parameters.items() if p.multipliers != NEUTRAL}
    if multiplied:
        told["multipliers"] = multiplied
    notes = {f"variables/{name}": text_of(_kind(variable)) for name, variable in names.items()}
    tensors = [_tensor("iterations", state.iterations.array)]
    if variables is not None:
        tensors += [_tensor(f"variables/{name}", array_of(variable)) for name, variable in names.items()]
    for name in state.slot_names:
        for i, parameter in parameters.items():
            if name in parameter.slots:
                tensors += _slot_tensors(parameter.slots[name], owners[i], name)
    return {"optimizer": json.dumps(told), **notes}, tensors


def _owners(state: State, names: dict[str, Any]) -> dict[int, str]:
    """Return the names of the parameters that are known, by their identity."""
    owners: dict[int, str] = {}
    for name, variable in names.items():
        parameter = state.parameters.find(variable)
        if parameter is not None:
            first = owners.setdefault(id(parameter), name)
            if first != name:
                raise ValueError(f"Variable {name!r} is the same as variable {first!r}.")
    return owners


def _slot_tensors(slot: Variable, owner: str, name: str) -> list[Tensor]:
    """Return the arrays that a slot is kept in: itself, or, where it is encoded, several."""
    place = f"{quote(name, safe='')}/{owner}"
    parts = getattr(slot, "parts", None)
    if parts is not None:
        return [_tensor(f"{part}/{place}", array) for part, array in parts.items()]
    return [Tensor(f"slots/{place}", _kind(slot), lambda copy: _host(slot.array, copy))]


def _tensor(name: str, array: Array) -> Tensor:
    return Tensor(name, _kind(array), lambda copy: _host(array, copy))


def _host(array: Array, copy: bool) -> Host:
    return array if isinstance(array, np.ndarray) and not copy else to_numpy(array, pinned=True)


def _kind(array: Array | Variable) -> Kind:
    dtype = dtypes.name_of(array.dtype)
    return Kind(dtype, tuple(array.shape), itemsize_of(dtype))
