"""One step over a list of NumPy arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmsprop.backends import Gradient, Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.parameters import Parameter
from rmsprop_numba import kernels, layout, rows
from rmsprop_numba.threads import run
from rmsprop_numba.variables import disjoint, owner

Array = np.ndarray[Any, Any]


def update(
    parameters: Sequence[Parameter],
    gradients: Sequence[Gradient],
    factors: Array | None,
    hyper: Hyperparameters,
) -> None:
    """Update all variables and slots; see `rmsprop.backends.Backend`."""
    owners = {id(owner(parameter.variable.array)) for parameter in parameters}
    numbers = (*_numbers(hyper), hyper.clipvalue)
    separated = [disjoint(gradient, owners) for gradient in gradients]
    for i, (parameter, gradient) in enumerate(zip(parameters, separated, strict=True)):
        scalars = (*numbers, None if factors is None else factors[i])
        slots = parameter.slots
        mom = None if hyper.momentum is None else slots["momentum"].array
        mg = slots["mg"].array if hyper.centered else None
        tables = (parameter.variable.array, slots["rms"].array, mom, mg)
        if isinstance(gradient, IndexedSlices):
            rows.update_rows(tables, gradient, scalars, hyper)
        else:
            _update_dense(tables, gradient, scalars, hyper.complex_as_real)


def _numbers(hyper: Hyperparameters) -> tuple[float, ...]:
    """Return the scalars of the kernels, all in double precision."""
    inner, outer = (hyper.epsilon, 0.0) if hyper.epsilon_in_sqrt else (0.0, hyper.epsilon)
    return hyper.learning_rate, hyper.rho, 1.0 - hyper.rho, hyper.momentum or 0.0, inner, outer


def _update_dense(
    tables: tuple[Array | None, ...], gradient: Array, scalars: tuple[Any, ...], complex_as_real: bool
) -> None:
    variable, rms, mom, mg = tables
    arrays: Sequence[Array | None] = (variable, gradient, rms, mom, mg)
    if complex_as_real or gradient.dtype.char not in "fdFD":
        arrays = [layout.encoded(a, complex_as_real) for a in arrays]
    if (flat := layout.flat(arrays)) is not None:
        run(kernels.sweep, kernels.sweep_parallel, gradient.size, *flat, *scalars)
        return
    for views in layout.matrices(arrays):
        assert views[0] is not None
        if views[0].ndim == 1:
            run(kernels.sweep, kernels.sweep_parallel, gradient.size, *views, *scalars)
        else:
            run(kernels.sweep_matrix, kernels.sweep_matrix_parallel, gradient.size, *views, *scalars)


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
