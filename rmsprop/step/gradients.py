"""Validation of gradients: everything is checked here before a step touches anything."""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import (
    Array,
    as_beside,
    is_array,
    namespace,
    on_device,
    refuse_subclass,
    refuse_traced,
    shared,
    to_numpy,
)
from rmsprop.arrays.windows import Windows, check_inside, check_starts, checked_patch, starts_on_host
from rmsprop.backends import Gradient
from rmsprop.state.parameters import Parameter
from rmsprop.variables.nested import Tree, flatten, is_tree, matched, outline
from rmsprop.variables.variable import Variable, described

logger = logging.getLogger("rmsprop")


def listed(grads_and_vars: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Return what an iterable yields, in a new list; ``TypeError`` if it is none."""
    if not hasattr(grads_and_vars, "__iter__"):
        raise TypeError(
            f"grads_and_vars must be an iterable of (gradient, variable) pairs; given {_short(grads_and_vars)}."
        )
    return list(grads_and_vars)


def pairs(grads_and_vars: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return the pairs that have a gradient, of variables that are trainable; of pairs of trees, those in them.

    Raises
    ------
    TypeError
        If `grads_and_vars` is not an iterable of pairs.
    ValueError
        If there are variables, but no gradient for any, or trees differ in structure.
    """
    given = listed(grads_and_vars)
    for position, pair in enumerate(given):
        if not isinstance(pair, (tuple, list)) or len([*pair]) != 2:  # a class of the user's might tell another
            raise TypeError(
                f"grads_and_vars[{position}] must be a pair (gradient, variable); given {_short(pair)}."
            )
    if has_trees(given):
        given = [
            each
            for position, (gradients, variables) in enumerate(given)
            for each in _branches(gradients, variables, position)
        ]
    trained = [pair for pair in given if not (isinstance(pair[1], Variable) and not pair[1].trainable)]
    kept = [pair for pair in trained if pair[0] is not None]
    if len(kept) < len(trained):
        _report_missing(trained, bool(kept))
    return kept


def has_trees(given: Iterable[Any]) -> bool:
    """Tell whether trees are paired with trees of gradients."""
    return any([is_tree(x) for pair in given if isinstance(pair, tuple | list) for x in [*pair][1:2]])


def _branches(gradients: Any, variables: Tree, position: int) -> list[tuple[Any, Any]]:
    """Return the pairs in two trees of one structure, which that of the variables tells."""
    found, leaves = matched(gradients, variables), flatten(variables)
    for leaf in leaves:
        if not isinstance(leaf, Variable) and not is_array(leaf):
            raise TypeError(
                f"Variable {position} {described(variables)} must be an array or a rmsprop.Variable, or a tree of "
                f"these; given {_short(leaf)} in it."
            )
    if found is None:
        raise ValueError(
            f"the gradients of grads_and_vars[{position}] must have the structure of its variables, "
            f"{outline(variables)}; given {outline(gradients)}."
        )
    return list(zip(found, leaves, strict=True))


def _report_missing(given: list[tuple[Any, Any]], has_any: bool) -> None:
    missing = ", ".join(f"{i} {described(v)}" for i, (gradient, v) in enumerate(given) if gradient is None)
    if not has_any:
        raise ValueError(f"No gradients provided for any variable: {missing}.")
    logger.warning("Gradients do not exist for these variables, which stay as they are: %s.", missing)


def checked(gradient: Any, parameter: Parameter, position: int, validate: bool) -> Gradient:
    """Return a gradient that fits its parameter, cast to the dtype of the variable if need be.

    With `validate`, rows and windows are checked even if that means to wait for a device.

    Raises
    ------
    TypeError
        If the gradient is of another array library, complex for a real variable, or of integers.
    ValueError
        If a shape differs, or an index or a window is out of range.
    """
    try:
        # A number beyond the variable's dtype becomes infinite, as it would in the arithmetic of the step.
        with on_device(parameter.variable.array), np.errstate(all="ignore"):
            gradient = parameter.backend.adapted(gradient)
            if isinstance(gradient, IndexedSlices):
                return _checked_slices(gradient, parameter, validate)
            if isinstance(gradient, Windows):
                return _checked_windows(gradient, parameter, validate)
            dense = _checked_array(gradient, parameter.variable.array, "the gradient")
        if tuple(dense.shape) != parameter.shape:
            raise ValueError(f"the gradient has shape {tuple(dense.shape)}; expected {parameter.shape}.")
        return dense
    except (TypeError, ValueError) as error:
        raise type(error)(f"Gradient of variable {position} {parameter}: {error}") from None


def _checked_array(array: Any, like: Array, what: str) -> Array:
    """Return `array` in the library and dtype of `like`."""
    if type(array) is type(like) and array.dtype == like.dtype:
        return array
    if isinstance(array, Variable):
        array = array.array
    if isinstance(array, np.generic) and isinstance(like, np.ndarray):
        array = np.asarray(array)
    array = shared(array)
    if isinstance(array, int | float | complex | list | tuple):
        return _from_python(array, like, what)
    if not is_array(array):
        raise TypeError(f"{what} must be an array; given {_short(array)}.")
    refuse_subclass(array, what)
    refuse_traced(array, f"{what} is")
    if namespace(array) is not namespace(like):
        raise TypeError(f"{what} is an array of {_library(array)}, but the variable is one of {_library(like)}.")
    given, wanted = dtypes.name_of(array.dtype), dtypes.name_of(like.dtype)
    if not dtypes.castable(given, wanted):
        raise TypeError(f"{what} has dtype {given}, which can't be cast to {wanted}.")
    if array.dtype == like.dtype:
        return array
    with on_device(array):  # and not on that of the variable, so that a wrong one is still noticed
        return namespace(array).astype(array, like.dtype)


def _from_python(numbers: Any, like: Array, what: str) -> Array:
    """Return Python numbers as an array like `like`."""
    try:
        as_numpy = np.asarray(numbers)
    except ValueError:
        raise TypeError(
            f"{what} must not consist of lists of different lengths; given {_short(numbers)}."
        ) from None
    if as_numpy.dtype.kind not in "iufc":
        raise TypeError(f"{what} must consist of numbers; given {_short(numbers)}.")
    if as_numpy.dtype.kind == "c" and not dtypes.is_complex(dtypes.name_of(like.dtype)):
        raise TypeError(f"{what} is complex, but the variable is real.")
    return as_beside(numbers, like, like.dtype)


def _check_range(indices: Array, parameter: Parameter, validate: bool) -> None:
    """Raise ``ValueError`` for rows out of range, which some backends report only later, unless told to wait."""
    backend = parameter.backend
    backend.report_misses(parameter)
    is_checked = validate or not backend.reports_misses
    if is_checked and not backend.in_range(indices, parameter.shape[0]):
        raise ValueError(f"indices must be >= 0 and < {parameter.shape[0]}.")


def _checked_slices(gradient: IndexedSlices, parameter: Parameter, validate: bool) -> IndexedSlices:
    """Return sparse gradients with values and indices in their final form."""
    array, shape = parameter.variable.array, parameter.shape
    _check_sparse(gradient, parameter)
    values = _checked_array(gradient.values, array, "values")
    indices = _checked_indices(gradient.indices, array)
    expected = (*indices.shape, *shape[1:])
    if tuple(values.shape) != expected:
        raise ValueError(f"values has shape {tuple(values.shape)}; expected {expected}.")
    _check_range(indices, parameter, validate)
    return IndexedSlices(values, indices)


def _checked_windows(gradient: Windows, parameter: Parameter, validate: bool) -> Windows:
    """Return windows with values and starts in their final form."""
    array, shape, backend = parameter.variable.array, parameter.shape, parameter.backend
    if not backend.takes_windows:
        raise TypeError(
            f"the backend for {_library(array)} takes no Windows; expected a dense gradient, or for the variable "
            f"as x.reshape(-1) the IndexedSlices that windows.indexed(x.shape) returns."
        )
    _check_sparse(gradient, parameter)
    values, starts = _checked_array(gradient.values, array, "values"), gradient.starts
    patch, count = checked_patch(values, shape), values.shape[0]
    backend.report_misses(parameter)
    if is_array(starts) and not isinstance(starts, np.ndarray):
        refuse_traced(starts, "starts is")
        if namespace(starts) is not namespace(array):
            raise TypeError(f"starts must be an array of NumPy or {_library(array)}; given {_short(starts)}.")
        check_starts(starts, count, patch)
        if backend.reports_misses and not validate:
            return Windows(values, namespace(starts).astype(starts, namespace(starts).int64, copy=False))
    starts = starts_on_host(starts, count, patch)
    check_inside(starts, patch, shape)
    return Windows(values, starts)


def _check_sparse(gradient: IndexedSlices | Windows, parameter: Parameter) -> None:
    """Raise an error if a variable can't have a sparse gradient, or only one of another shape."""
    shape = parameter.shape
    if parameter.variable.constraint is not None:
        raise RuntimeError(f"Variable {parameter} has a constraint, which can't be used with a sparse gradient.")
    if not shape:
        raise ValueError("a variable without axes can't have a sparse gradient.")
    if gradient.dense_shape is not None and _listed_shape(gradient.dense_shape) != list(shape):
        raise ValueError(f"dense_shape is {gradient.dense_shape!r}; expected {shape}.")


def _listed_shape(shape: Any) -> Any:
    """Return a shape, which may be an array of integers, as a list; what is none as it is."""
    if is_array(shape):
        shape = to_numpy(shape).tolist()
    is_shape = isinstance(shape, list | tuple) and all(isinstance(n, int | np.integer) for n in shape)
    return list(shape) if is_shape else shape


def _checked_indices(indices: Any, like: Array) -> Array:
    if type(indices) is np.ndarray is type(like) and indices.ndim == 1 and indices.dtype.kind in "iu":
        return indices  # by far the most frequent
    xp, indices = namespace(like), shared(indices)
    if isinstance(indices, list | tuple):
        try:
            indices = as_beside(indices, like, None if len(indices) else xp.int32)
        except (ValueError, TypeError, OverflowError):
            raise TypeError(f"indices must be integers; given {_short(indices)}.") from None
    if not is_array(indices) or namespace(indices) is not xp:
        raise TypeError(f"indices must be an array of integers of {_library(like)}; given {_short(indices)}.")
    refuse_subclass(indices, "indices")
    if not xp.isdtype(indices.dtype, "integral"):
        raise TypeError(f"indices must be integers; given dtype {dtypes.name_of(indices.dtype)}.")
    if len(indices.shape) != 1:
        raise ValueError(f"indices must have one axis; given shape {tuple(indices.shape)}.")
    return indices


def _library(array: Array) -> str:
    return namespace(array).__name__.removeprefix("array_api_compat.")


def _short(x: Any) -> str:
    text = repr(x)
    return f"{type(x).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"
