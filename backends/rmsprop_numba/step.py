"""One step over a list of NumPy arrays."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host
from rmsprop.arrays.windows import Windows
from rmsprop.backends import SPARSE, Gradient, Updatable, values_of
from rmsprop.formula import Hyperparameters
from rmsprop_numba import kernels, layout, lists, rows, windows
from rmsprop_numba.aliases import disjoint
from rmsprop_numba.lists import list_plan_of
from rmsprop_numba.pieces import divided
from rmsprop_numba.plans import Plan, plan_of
from rmsprop_numba.threads import Job, job
from rmsprop_numba.variables import address

Array = Host


def prepare(
    parameters: Sequence[Updatable],
    gradients: Sequence[Gradient],
    factors: Array | None,
    hyper: Hyperparameters,
) -> Callable[[], None]:
    """Do all that may fail, for lack of memory, before the first variable changes; return what updates them."""
    if hyper.state_dtype is not None:
        from rmsprop_numba import compact_step  # only for those who ask for it

        return partial(_run, compact_step.jobs(parameters, gradients, factors, hyper))
    plans = [plan_of(parameter, hyper) for parameter in parameters]
    apart = disjoint(gradients, [plan.owners for plan in plans], [plan.tables for plan in plans])
    return partial(_run, _jobs(parameters, plans, apart, factors, hyper), apart)


def _run(jobs: list[Job], alive: Sequence[Gradient] = ()) -> None:
    """Take a step; of the gradients in `alive`, some of which are copies, kernels only get the address."""
    for function, arguments in jobs:
        function(*arguments)


def _jobs(
    parameters: Sequence[Updatable],
    plans: Sequence[Plan],
    gradients: Sequence[Gradient],
    factors: Array | None,
    hyper: Hyperparameters,
) -> list[Job]:
    """Return the calls that update all variables: those that are contiguous together, others one by one."""
    jobs: list[Job] = []
    together: dict[int, Array] = {}
    for i, (plan, gradient) in enumerate(zip(plans, gradients, strict=True)):
        if (
            not isinstance(gradient, SPARSE)
            and plan.flat is not None
            and gradient.flags.c_contiguous
            and gradient.flags.aligned
        ):
            together[i] = gradient
            continue
        numbers = hyper.numbers_of(parameters[i].multipliers)
        scaling = hyper.clipvalue, None if factors is None else tuple(factors[i].tolist())
        if isinstance(gradient, IndexedSlices):
            jobs += rows.jobs(plan.rows, plan.tables, gradient, numbers, scaling, hyper)
        elif isinstance(gradient, Windows):
            jobs += windows.jobs(plan.tables, gradient, numbers, scaling, hyper)
        else:
            encoded = layout.encoded(gradient, hyper.complex_as_real)
            jobs += _strided_jobs(plan, encoded, (tuple(numbers), *scaling), hyper.complex_as_real)
    if together:
        plan_of_list = list_plan_of([parameters[i] for i in together], [plans[i] for i in together])
        chosen = None if factors is None else factors[list(together)]
        jobs += plan_of_list.jobs(_addresses(list(together.values())), chosen, hyper)
    return jobs


def _strided_jobs(plan: Plan, gradient: Array, scalars: tuple[Any, ...], complex_as_real: bool) -> list[Job]:
    variable, *slots = (layout.encoded(a, complex_as_real) for a in plan.tables)
    arrays = (variable, gradient, *slots)
    if (flat := layout.flat(arrays)) is not None:
        return [job(kernels.sweep, kernels.sweep_parallel, gradient.size, *flat, *scalars)]
    by_axes = {
        1: (kernels.sweep, kernels.sweep_parallel),
        2: (kernels.sweep_matrix, kernels.sweep_matrix_parallel),
    }
    return [job(*by_axes[views[0].ndim], gradient.size, *views, *scalars) for views in layout.matrices(arrays)]


def squared_norms(gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
    """Return the sum of ``|scale * g|**2`` of each gradient after clipping by value, in double precision.

    Blocks of a fixed size are summed in a fixed order, so that the result does not depend on threads or layout.
    """
    arrays = _flat(gradients, hyper.complex_as_real)
    return lists.squared_norms(divided([(a,) for a in arrays]), _addresses(arrays), hyper.clipvalue, scale)


def first_nonfinite(gradients: Sequence[Gradient]) -> int | None:
    """Return the position of the first gradient with a NaN or an infinity, or None."""
    arrays = _flat(gradients)
    return lists.first_nonfinite(divided([(a,) for a in arrays]), _addresses(arrays))


def _flat(gradients: Sequence[Gradient], complex_as_real: bool = False) -> list[Array]:
    """Return the elements of gradients as the kernels read them, with one axis and without gaps."""
    encoded = [layout.encoded(values_of(gradient), complex_as_real) for gradient in gradients]
    return [np.require(g, requirements=("C", "A")).reshape(-1) for g in encoded]


def _addresses(arrays: Sequence[Array]) -> Array:
    return np.array([address(array) for array in arrays], np.int64)
