"""One step over a list of variables that hold arrays of any library."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import (
    Array,
    Namespace,
    detached,
    moved_beside,
    namespace,
    place_beside,
    refuse_traced,
    to_numpy,
)
from rmsprop.arrays.rows import rows_of, sums_by_row, taken, with_rows
from rmsprop.arrays.windows import Windows, flat
from rmsprop.backends import SPARSE, Gradient, Updatable, values_of
from rmsprop.formula import Hyperparameters, Numbers, VariableState
from rmsprop.pure import averaged, computing, limited, squared_norm, updated
from rmsprop_array_api import compiled, replays


def memory(array: Array) -> NoReturn:
    """Refuse plain arrays: the standard has no means to recognise two views of the same memory."""
    kind = f"{type(array).__module__}.{type(array).__name__}"
    raise TypeError(f"a {kind} can't be updated in place; put it into a rmsprop.Variable.")


def check_variable(array: Array) -> None:
    """Raise ``TypeError`` if the library would record the update for its own differentiation, or traces it."""
    refuse_traced(array, "it is")
    if getattr(array, "requires_grad", False):
        raise TypeError("the array requires grad; expected a detached one.")


def overlapping(arrays: Sequence[Array]) -> None:
    """Find no overlap: variables own their arrays, which are never changed."""


def zeros(like: Array, dtype: str) -> Array:
    """Return zeros of the shape and on the device of an array."""
    xp = namespace(like)
    new = xp.zeros(tuple(like.shape), dtype=getattr(xp, dtype), device=place_beside(like))
    refuse_traced(new, "slots would be")
    return moved_beside(new, like)


def in_range(indices: Array, rows: int) -> bool:
    """Tell whether all indices are those of rows."""
    host = to_numpy(indices)
    return host.size == 0 or bool(host.min() >= 0 and host.max() < rows)


@np.errstate(all="ignore")
def squared_norms(gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
    """Return the sum of ``|scale * g|**2`` of each gradient after clipping, in the widest precision there is."""
    values = [detached(values_of(gradient)) for gradient in gradients]
    return namespace(values[0]).stack([squared_norm(each, hyper, scale) for each in values])


def prepare(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    factors: Array | None,
    hyper: Hyperparameters,
) -> Callable[[], None]:
    """Compute all variables and slots; return what replaces them. A compiled step computes them only then."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        refuse_traced(detached(values_of(gradient)), "the gradient of variable {} is", parameter)
    if compiled.compiles(parameters[0].variable.array) and not any([isinstance(g, SPARSE) for g in gradients]):
        return partial(_compiled, parameters, gradients, factors, hyper)
    with np.errstate(all="ignore"):  # libraries made of NumPy would warn of infinities, as no other does
        new = [
            _updated(
                _state(parameter, hyper),
                gradient,
                None if factors is None else factors[i, ...],
                hyper.numbers_of(parameter.multipliers),
                hyper,
            )
            for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True))
        ]
    _refuse_traced(parameters, new)
    return partial(replays.replace, parameters, new)


def _refuse_traced(parameters: Sequence[Updatable], new: Sequence[VariableState]) -> None:
    """Raise ``TypeError`` for a step inside of a traced function, also by constant gradients."""
    for parameter, state in zip(parameters, new, strict=True):
        refuse_traced(state.variable, "the step of variable {} would be", parameter)


def _compiled(
    parameters: Sequence[Updatable], gradients: Sequence[Gradient], factors: Array | None, hyper: Hyperparameters
) -> None:
    """Take a step in one compiled function.

    Gradients are clipped before: a compiler may multiply the two numbers of a factor first, which they are two to
    prevent.
    """
    if factors is not None or hyper.clipvalue is not None:
        with np.errstate(all="ignore"):
            gradients = [
                limited(gradient, None if factors is None else factors[i, ...], hyper)
                for i, gradient in enumerate(gradients)
            ]
    replays.taken(parameters, gradients, hyper)


def _state(parameter: Updatable, hyper: Hyperparameters) -> VariableState:
    used = [None if slot is None else slot.array for slot in hyper.used(parameter.slots)]
    return VariableState(parameter.variable.array, *used)


def _updated(
    state: VariableState, gradient: Gradient, factor: Array | None, numbers: Numbers, hyper: Hyperparameters
) -> VariableState:
    """Return the new state of one variable, by a dense or a sparse gradient, where the old one is."""
    if isinstance(gradient, IndexedSlices):
        new = _updated_rows(state, gradient, factor, numbers, hyper)
    elif isinstance(gradient, Windows):
        rows = flat(gradient, state.variable.shape)
        new = _shaped(_updated_rows(_shaped(state, (-1,)), rows, factor, numbers, hyper), state.variable.shape)
    else:
        new = compiled.dense(state._replace(average=None), detached(gradient), factor, numbers, hyper)
    if state.average is not None:
        new = new._replace(average=averaged(state.average, new.variable, numbers))
    return VariableState(*(x if x is None else moved_beside(x, y) for x, y in zip(new, state, strict=True)))


def _shaped(state: VariableState, shape: tuple[int, ...]) -> VariableState:
    xp = namespace(state.variable)
    return VariableState(*(x if x is None else xp.reshape(x, shape) for x in state))


def _updated_rows(
    state: VariableState, gradient: IndexedSlices, factor: Array | None, numbers: Numbers, hyper: Hyperparameters
) -> VariableState:
    """Update the listed rows, each by the sum of its gradients in their order.

    The standard has no scatter, so that whole tables are written: the cost grows with their height.
    """
    state = state._replace(average=None)
    xp, tables = namespace(state.variable), state
    if hyper.averages_decay:
        tables = VariableState(state.variable, *(x if x is None else numbers.rho * x for x in state[1:]))
    if hyper.variables_shrink:
        tables = tables._replace(variable=_shrunk(xp, state.variable, numbers))
    rows, order, starts = rows_of(to_numpy(gradient.indices))
    if len(rows) == 0:
        return tables
    total = sums_by_row(xp, limited(detached(gradient.values), factor, hyper), order, starts)
    old = VariableState(*(x if x is None else taken(xp, x, rows) for x in state))
    new = updated(old, total, numbers, hyper)
    return VariableState(
        *(x if x is None else with_rows(xp, x, rows, y) for x, y in zip(tables, new, strict=True))
    )


def _shrunk(xp: Namespace, variable: Array, numbers: Numbers) -> Array:
    """Return a variable after decoupled weight decay alone."""
    wide = xp.astype(variable, computing(xp, variable))
    return xp.astype(wide - numbers.shrinkage * wide, variable.dtype)
