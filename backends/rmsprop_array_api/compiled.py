"""The step of a whole list as one compiled function, in libraries that compile functions of their arrays.

The numbers of the step are arguments, so that a schedule compiles nothing again. The memory of variables and slots
is given away for the results, as far as they are alone in it: see `own`.
"""

import sys
import weakref
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.dtypes import COMPUTE, name_of, real
from rmsprop.arrays.libraries import Array, copied, device, namespace, refuse_traced
from rmsprop.backends import HasArray, Updatable
from rmsprop.formula import Hyperparameters, Numbers, VariableState
from rmsprop.pure import averaged, limited, updated


def _by_jax(function: Callable[..., Any], fixed: tuple[int, ...], given: tuple[int, ...]) -> Callable[..., Any]:
    jitted: Callable[..., Any] = import_module("jax").jit(function, static_argnums=fixed, donate_argnums=given)
    return jitted


COMPILERS = {"jax.numpy": _by_jax}
"""Which libraries compile, by the names of their namespaces, and how.

Each takes a function, the positions of arguments that it is compiled for anew, and of those whose memory it may
use.
"""


@cache
def _compiled(
    library: str, function: Callable[..., Any], fixed: tuple[int, ...], given: tuple[int, ...] = ()
) -> Callable[..., Any]:
    return COMPILERS[library](function, fixed, given)


def compiles(array: Array) -> bool:
    """Tell whether steps of an array's library are compiled; not if it is spread over several devices."""
    return namespace(array).__name__ in COMPILERS and not hasattr(device(array), "device_set")


def dense(
    state: VariableState, gradient: Array, factor: Array | None, numbers: Numbers, hyper: Hyperparameters
) -> VariableState:
    """Return the new state of one variable, by a dense gradient."""
    new = updated(state, limited(gradient, factor, hyper), numbers, hyper)
    if state.average is not None:
        new = new._replace(average=averaged(state.average, new.variable, numbers))
    return new


class Call(NamedTuple):
    """A step, apart from the arrays that it is of."""

    values: Array
    """The numbers of the formula, those that are not None: a row for each of several multipliers."""
    which: tuple[int, ...]
    """The row of each variable, empty if there is only one row."""
    terms: tuple[bool, ...]
    """Which of the numbers are not None."""
    variant: Hyperparameters
    """The options of the formula."""


def call(parameters: Sequence[Updatable], hyper: Hyperparameters) -> Call:
    """Return a step of variables, as it is for all gradients."""
    arrays = [parameter.variable.array for parameter in parameters]
    multipliers = list(dict.fromkeys([p.multipliers for p in parameters]))
    which = tuple([multipliers.index(p.multipliers) for p in parameters]) if len(multipliers) > 1 else ()
    numbers = [hyper.numbers_of(each) for each in multipliers]
    values = np.array([[number for number in each if number is not None] for each in numbers])
    if all([real(COMPUTE[name_of(a.dtype)]) == "float32" for a in arrays]):
        values = namespace(arrays[0]).asarray(values.astype(np.float32))  # once, if it serves several steps
        refuse_traced(values, "the step would be")
    return Call(values, which, tuple([number is not None for number in numbers[0]]), _variant(hyper))


def step(states: Sequence[VariableState], gradients: Sequence[Array], call: Call) -> list[VariableState]:
    """Return the new states of variables, by clipped gradients; the old ones may be gone."""
    take = _compiled(namespace(gradients[0]).__name__, _steps, (3, 4, 5), (0,))
    new: list[VariableState] = take(states, gradients, *call)
    return new


def _steps(
    states: Sequence[VariableState],
    gradients: Sequence[Array],
    values: Array,
    which: tuple[int, ...],
    terms: tuple[bool, ...],
    hyper: Hyperparameters,
) -> list[VariableState]:
    numbers_of = cache(partial(_numbers, values, terms))  # once for each dtype
    return [
        dense(state, gradient, None, numbers_of(which[i] if which else 0, name_of(state.variable.dtype)), hyper)
        for i, (state, gradient) in enumerate(zip(states, gradients, strict=True))
    ]


def _numbers(values: Array, terms: tuple[bool, ...], row: int, dtype: str) -> Numbers:
    """Return the numbers of a step for variables of a dtype, in the real dtype of the computation.

    They come in one array: an argument for each of them would cost more.
    """
    xp = namespace(values)
    each = iter(xp.astype(values[row], getattr(xp, real(COMPUTE[dtype]))))
    return Numbers._make([next(each) if is_given else None for is_given in terms])


def _variant(hyper: Hyperparameters) -> Hyperparameters:
    """Return what a function is compiled for: the options, without the numbers that it is given."""
    return Hyperparameters(
        0.0, 0.0, None, 0.0, False, hyper.centered, None, None, None, True, hyper.complex_as_real
    )  # fmt: skip


# Whose memory may be given away


def own_state(parameter: Updatable, hyper: Hyperparameters) -> VariableState:
    """Return the arrays of a variable and its slots, to be given away."""
    holders = parameter.variable, *hyper.used(parameter.slots)
    made = parameter.notes or [None] * len(holders)
    return VariableState(*[None if h is None else own(h, m) for h, m in zip(holders, made, strict=True)])


def own(holder: HasArray, made: "weakref.ref[Any] | None") -> Array:
    """Return the array of a variable or a slot if a step made it and nobody else holds it, else a copy.

    Only then may its memory be used again: an array that the user made may share it with others.
    """
    is_own = made is not None and made() is holder.array and _holders(holder) <= _alone()
    return holder.array if is_own else copied(holder.array)


def _holders(holder: Any) -> int:
    return sys.getrefcount(holder.array)


@cache
def _alone() -> int:
    """Return how many hold an array that a variable alone holds, as this interpreter counts them."""
    return _holders(SimpleNamespace(array=object()))
