"""Slots of variables: how they are made, all or none of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import (
    Array,
    DType,
    as_beside,
    is_array,
    moved_beside,
    namespace,
    on_device,
    place_beside,
    to_numpy,
)
from rmsprop.formula import ACCUMULATOR, AVERAGE, SLOTS
from rmsprop.settings.settings import Settings
from rmsprop.state.multipliers import join
from rmsprop.state.parameters import Parameter
from rmsprop.variables.nested import Tree
from rmsprop.variables.variable import Variable

INITIALIZERS: dict[str, float] = {"zeros": 0.0, "ones": 1.0}


def complete(settings: Settings, parameters: Sequence[Parameter]) -> None:
    """Create the slots that steps need and that are missing, and make the parameters known, if any lacks one."""
    needed = {*settings.slots}
    missing = [p for p in parameters if not p.slots.keys() >= needed]
    if missing:
        create(settings, missing, [p.key for p in missing])


def create(settings: Settings, parameters: Sequence[Parameter], variables: Tree) -> None:
    """Create the slots that are missing, and make the parameters known, all or none of them.

    Their variables, in the structure that they were given in, may be what loaded state waits for.
    """
    state = settings.state
    if state.waiting is not None:
        state.waiting.claim(settings, parameters, variables)
    state.parameters.name(parameters)
    missing = [(p, name) for name in settings.slots for p in parameters if name not in p.slots]
    created = [initial(settings, parameter, name) for parameter, name in missing]
    for parameter in parameters:
        is_new = state.parameters.add(parameter)
        if is_new and state.undecayed:
            join(state, parameter)
    for (parameter, name), slot in zip(missing, created, strict=True):
        state.add(parameter, name, slot)


def initial(settings: Settings, parameter: Parameter, name: str) -> Variable:
    """Return a new slot of those that steps use, or with sharded state this rank's share of it."""
    array, strategy, label = parameter.variable.array, settings.state.strategy, labelled(settings, parameter, name)
    state_dtype, is_sharded = settings.values["state_dtype"], strategy is not None and strategy.shard_state
    if state_dtype is not None and is_sharded:
        raise ValueError(f"state_dtype={state_dtype!r} can't be used with shard_state=True.")
    dtype = SLOTS[name].dtype(dtypes.name_of(array.dtype), settings.values["complex_as_real"])
    if state_dtype is not None and SLOTS[name].is_compact:
        slot = _compact(parameter, name, dtype, state_dtype, label)
    elif strategy is not None and is_sharded and name != ACCUMULATOR:
        slot = strategy.share_of_slot(parameter, dtype, label)
    else:
        slot = Variable.around(parameter.backend.zeros(array, dtype), label, trainable=False)
    start = start_of(settings, parameter, name)
    return slot if start is None else slot.assign(start)


def start_of(settings: Settings, parameter: Parameter, name: str) -> Any:
    """Return what a slot begins at, in the form of NumPy; None for zero."""
    if name == AVERAGE:  # a new variable's is that of one step, once that has been taken
        return to_numpy(parameter.variable.array)
    dtype = SLOTS[name].dtype(dtypes.name_of(parameter.dtype), settings.values["complex_as_real"])
    start = SLOTS[name].start(settings.values["initial_accumulator"], dtype)
    return np.full(parameter.shape, start) if start else None


def _compact(parameter: Parameter, name: str, dtype: str, state_dtype: str, label: str) -> Variable:
    """Return a slot of a dtype that is kept in `state_dtype`."""
    backend, array = parameter.backend, parameter.variable.array
    if not backend.has_compact_slots:
        library = namespace(array).__name__.removeprefix("array_api_compat.")
        raise TypeError(
            f"Variable {parameter}: state_dtype={state_dtype!r} needs an array of NumPy or CuPy; given one of "
            f"{library}."
        )
    slot: Variable = backend.compact_slot(array, name, dtype, state_dtype, label)
    return slot


def labelled(settings: Settings, parameter: Parameter, name: str) -> str:
    """Return the name of a slot as a `Variable`."""
    return f"{settings.values['name']}/{parameter.variable.name}/{name}"


def added(settings: Settings, var: Any, name: str, initializer: Any, shape: Any) -> Variable:
    """Return a slot of a variable, which is created if there is none; see `rmsprop.RMSprop.add_slot`."""
    state = settings.state
    if not isinstance(name, str):
        raise TypeError(f"slot_name must be a string; given {name!r}.")
    parameter = state.parameters.obtain(var)
    if name in parameter.slots:
        return parameter.slots[name]
    if state.waiting is not None:
        raise RuntimeError("the loaded state waits for its variables: call build(var_list) before add_slot.")
    state.parameters.check_joining([parameter])
    state.parameters.name([parameter])
    shape = parameter.shape if shape is None else _checked_shape(shape)
    # Slots that steps use have to have the shape, dtype and layout that these expect.
    of_steps = initial(settings, parameter, name) if name in SLOTS else None
    dtype = parameter.dtype if of_steps is None else of_steps.dtype
    with on_device(parameter.variable.array):
        value = initial_value(initializer, shape, dtype, parameter.variable.array)
    if of_steps is None:
        slot = Variable.around(value, labelled(settings, parameter, name), trainable=False)
    else:
        SLOTS[name].check(to_numpy(value), f"slot {name!r}")
        slot = of_steps.assign(value)
    state.parameters.add(parameter)
    state.add(parameter, name, slot)
    return slot


def _checked_shape(shape: Any) -> tuple[int, ...]:
    numbers = [*shape] if isinstance(shape, Iterable) else [shape]
    if not isinstance(shape, Iterable) or not all(isinstance(n, int | np.integer) for n in numbers):
        raise TypeError(f"shape must be a tuple of whole numbers; given {shape!r}.")
    if min(numbers, default=0) < 0:
        raise ValueError(f"shape must have no negative numbers; given {shape!r}.")
    return tuple(map(int, numbers))


def initial_value(
    initializer: str | Callable[..., Any] | Any, shape: tuple[int, ...], dtype: DType, like: Array
) -> Array:
    """Return a new array as an initializer describes it, of the library and on the device of another one."""
    xp = namespace(like)
    if isinstance(initializer, str):
        if initializer not in INITIALIZERS:
            raise ValueError(f"Unknown initializer: {initializer!r}; expected one of {sorted(INITIALIZERS)}.")
        array = xp.full(shape, INITIALIZERS[initializer], dtype=dtype, device=place_beside(like))
    else:
        value = initializer(shape=shape, dtype=dtype) if callable(initializer) else initializer
        if not is_array(value) and np.asarray(value).dtype.kind not in "biufc":
            raise TypeError(f"initializer must give an array or numbers; given {value!r}.")
        array = as_beside(value, like, copy=True)
        if dtypes.is_complex(dtypes.name_of(array.dtype)) and not dtypes.is_complex(dtypes.name_of(dtype)):
            raise TypeError(f"initializer must give real numbers; given {value!r}.")
        array = xp.astype(array, dtype, copy=False)
    return moved_beside(array, like) if array.shape == like.shape else array
