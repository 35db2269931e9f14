"""One step over a list of NumPy arrays."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from rmsprop.backends import Gradient, Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.memory import owner
from rmsprop.parameters import Parameter
from rmsprop_numba import kernels, layout, rows
from rmsprop_numba.plans import Plan, owns_memory, plan_of
from rmsprop_numba.rows import Job
from rmsprop_numba.threads import run

Array = np.ndarray[Any, Any]


def update(
    parameters: Sequence[Parameter],
    gradients: Sequence[Gradient],
    factors: Array | None,
    hyper: Hyperparameters,
) -> None:
    """Update all variables and slots; see `rmsprop.backends.Backend`.

    All that may fail, for lack of memory, is done before the first variable changes.
    """
    plans = [plan_of(parameter, hyper) for parameter in parameters]
    numbers = (*_numbers(hyper), hyper.clipvalue)
    jobs: list[Job] = []
    for i, (plan, gradient) in enumerate(zip(plans, disjoint(gradients, plans), strict=True)):
        jobs += _jobs(plan, gradient, (*numbers, None if factors is None else factors[i]), hyper)
    for function, arguments in jobs:
        function(*arguments)


def _jobs(plan: Plan, gradient: Gradient, scalars: tuple[Any, ...], hyper: Hyperparameters) -> Iterable[Job]:
    """Return the calls that update one variable."""
    if isinstance(gradient, IndexedSlices):
        return rows.jobs(plan.tables, gradient, scalars, hyper)
    encoded = layout.encoded(gradient, hyper.complex_as_real)
    if plan.flat is not None and encoded.flags.c_contiguous:
        variable, rms, mom, mg = plan.flat
        flat = encoded if encoded.ndim == 1 else encoded.reshape(-1)
        arguments = (variable, flat, rms, mom, mg, *scalars)
        return ((run, (kernels.sweep, kernels.sweep_parallel, gradient.size, *arguments)),)
    return _strided_jobs(plan, encoded, scalars, hyper.complex_as_real)


def _numbers(hyper: Hyperparameters) -> tuple[float, ...]:
    """Return the scalars of the kernels, all in double precision."""
    inner, outer = hyper.epsilons
    return hyper.learning_rate, hyper.rho, 1.0 - hyper.rho, hyper.momentum or 0.0, inner, outer


def _strided_jobs(plan: Plan, gradient: Array, scalars: tuple[Any, ...], complex_as_real: bool) -> list[Job]:
    variable, *slots = (layout.encoded(a, complex_as_real) for a in plan.tables)
    arrays = (variable, gradient, *slots)
    if (flat := layout.flat(arrays)) is not None:
        return [(run, (kernels.sweep, kernels.sweep_parallel, gradient.size, *flat, *scalars))]
    by_axes = {
        1: (kernels.sweep, kernels.sweep_parallel),
        2: (kernels.sweep_matrix, kernels.sweep_matrix_parallel),
    }
    return [(run, (*by_axes[views[0].ndim], gradient.size, *views, *scalars)) for views in layout.matrices(arrays)]


def disjoint(gradients: Sequence[Gradient], plans: Sequence[Plan]) -> list[Gradient]:
    """Return the gradients, as copies where they lie in memory that is being updated."""
    owners: set[int] = set()
    are_known = True
    for plan in plans:
        owners |= plan.owners
        are_known = are_known and bool(plan.owners)

    def apart(array: Array) -> Array:
        if are_known and id(array) not in owners and array.flags.owndata:
            return array
        return _copy_if_shared(array, owners if are_known else None, plans)

    return [
        IndexedSlices(apart(g.values), g.indices) if isinstance(g, IndexedSlices) else apart(g) for g in gradients
    ]


def _copy_if_shared(array: Array, owners: set[int] | None, plans: Sequence[Plan]) -> Array:
    """Return a view, or an array of a variable, copied if it lies in the memory of the variables or slots."""
    root = owner(array)
    if owners is not None and id(root) not in owners and owns_memory(root):
        return array
    start, stop = byte_bounds(array)
    tables = [table for plan in plans for table in plan.tables if table is not None]
    is_apart = all(stop <= low or high <= start for low, high in map(byte_bounds, tables))
    return array if is_apart else array.copy()


def squared_norms(gradients: Sequence[Gradient], hyper: Hyperparameters) -> Array:
    """Return the sum of ``|g|**2`` of each gradient after clipping by value, in double precision.

    Blocks of a fixed size are summed in a fixed order, so that the result does not depend on threads or layout.
    """
    return np.array([_squared_norm(g, hyper) for g in gradients])


def _squared_norm(gradient: Gradient, hyper: Hyperparameters) -> float:
    dense = gradient.values if isinstance(gradient, IndexedSlices) else gradient
    encoded = layout.encoded(dense, hyper.complex_as_real)
    flat = np.ascontiguousarray(encoded).reshape(-1)
    sums = np.empty(-(-flat.size // kernels.BLOCK))
    run(kernels.square_sums, kernels.square_sums_parallel, flat.size, flat, hyper.clipvalue, sums)
    total = 0.0
    for partial in sums.tolist():
        total += partial
    return total
