"""The weights of an optimizer as arrays of NumPy, in the order of Keras."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Host, refuse_subclass, to_numpy
from rmsprop.formula import SLOTS
from rmsprop.state.iterations import Iterations, check_count
from rmsprop.state.state import State
from rmsprop.variables.variable import Variable, array_of


def weights_of(state: State) -> list[Host]:
    """Return copies of the weights; see `rmsprop.RMSprop.get_weights`."""
    weights = [to_numpy(weight.array) for _, weight in state.named_weights]
    for parameter in state.parameters:
        parameter.report_misses()
    return weights


def set_weights(state: State, weights: Any, owner: str) -> None:
    """Replace the weights, of the optimizer that messages call `owner`; see `rmsprop.RMSprop.set_weights`."""
    if not isinstance(weights, Iterable) or isinstance(weights, str | bytes | Mapping):
        raise TypeError(f"set_weights takes a sequence of arrays; given {weights!r}.")
    given = [_as_numpy(array_of(weight), position) for position, weight in enumerate(weights)]
    named = state.named_weights
    if len(given) == len(named) - 1:
        given = [np.zeros((), np.int64), *given]
    if len(given) != len(named):
        raise ValueError(
            f"set_weights was given {len(given)} weights, but the optimizer {owner!r} has "
            f"{len(named)}. Before the first step, call build(var_list) to create its slots."
        )
    converted = [_fitting(new, name, weight) for new, (name, weight) in zip(given, named, strict=True)]
    for (_, weight), new in zip(named, converted, strict=True):
        weight.assign(new)
    for parameter in state.parameters:
        parameter.is_synced = False


def _as_numpy(weight: Any, position: int) -> Host:
    refuse_subclass(weight, f"Weight {position}")
    try:
        return to_numpy(weight)
    except ValueError:
        raise TypeError(f"Weight {position} must be an array; given lists of different lengths.") from None


def _fitting(new: Host, name: str, weight: Variable) -> Host:
    """Return a new value that can be assigned without fail to a weight, of which `name` says what it is."""
    if new.shape != weight.shape:
        raise ValueError(f"Weight {weight.name!r} has shape {weight.shape}; given one of shape {new.shape}.")
    wanted = dtypes.name_of(weight.dtype)
    is_numeric = new.dtype.kind in "biufc" or new.dtype.name in dtypes.COMPUTE
    if not is_numeric or (new.dtype.kind == "c" and not dtypes.is_complex(wanted)):
        raise ValueError(f"Weight {weight.name!r} has dtype {wanted}; given one of dtype {new.dtype}.")
    if isinstance(weight, Iterations) or name == "accumulated":
        check_count(new, f"Weight {weight.name!r}")
    elif name in SLOTS:
        SLOTS[name].check(new, f"Weight {weight.name!r}")
    return new
