"""One step over a list of NumPy arrays."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rmsprop.backends import Gradient, Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import Parameter
from rmsprop_numba import kernels, layout, rows
from rmsprop_numba.threads import run
from rmsprop_numba.variables import disjoint

Array = np.ndarray[Any, Any]
Job = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""


def update(
    parameters: Sequence[Parameter],
    gradients: Sequence[Gradient],
    factors: Array | None,
    hyper: Hyperparameters,
) -> None:
    """Update all variables and slots; see `rmsprop.backends.Backend`.

    All that may fail, for lack of memory, is done before the first variable changes.
    """
    numbers = (*_numbers(hyper), hyper.clipvalue)
    jobs: list[Job] = []
    for i, (parameter, gradient) in enumerate(zip(parameters, disjoint(parameters, gradients), strict=True)):
        jobs += _jobs(parameter, gradient, (*numbers, None if factors is None else factors[i]), hyper)
    for function, arguments in jobs:
        function(*arguments)


def _jobs(
    parameter: Parameter, gradient: Gradient, scalars: tuple[Any, ...], hyper: Hyperparameters
) -> Iterable[Job]:
    """Return the calls that update one variable."""
    slots = parameter.slots
    mom = None if hyper.momentum is None else slots["momentum"].array
    mg = slots["mg"].array if hyper.centered else None
    tables = (parameter.variable.array, slots["rms"].array, mom, mg)
    if isinstance(gradient, IndexedSlices):
        return rows.jobs(tables, gradient, scalars, hyper)
    return _dense_jobs(tables, gradient, scalars, hyper.complex_as_real)


def _numbers(hyper: Hyperparameters) -> tuple[float, ...]:
    """Return the scalars of the kernels, all in double precision."""
    inner, outer = (hyper.epsilon, 0.0) if hyper.epsilon_in_sqrt else (0.0, hyper.epsilon)
    return hyper.learning_rate, hyper.rho, 1.0 - hyper.rho, hyper.momentum or 0.0, inner, outer


def _dense_jobs(
    tables: tuple[Array | None, ...], gradient: Array, scalars: tuple[Any, ...], complex_as_real: bool
) -> list[Job]:
    variable, rms, mom, mg = tables
    arrays: Sequence[Array | None] = (variable, gradient, rms, mom, mg)
    if complex_as_real or gradient.dtype.char not in "fdFD":
        arrays = [layout.encoded(a, complex_as_real) for a in arrays]
    if (flat := layout.flat(arrays)) is not None:
        return [(run, (kernels.sweep, kernels.sweep_parallel, gradient.size, *flat, *scalars))]
    by_axes = {
        1: (kernels.sweep, kernels.sweep_parallel),
        2: (kernels.sweep_matrix, kernels.sweep_matrix_parallel),
    }
    return [
        (run, (*by_axes[views[0].ndim], gradient.size, *views, *scalars)) for views in layout.matrices(arrays)
    ]


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
