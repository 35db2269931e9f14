"""Differentiation of losses over NumPy arrays, by HIPS autograd."""

from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from rmsprop import dtypes
from rmsprop.arrays import Array
from rmsprop.variable import Variable, recording


class GradientTape:
    """Record what is computed from variables, then give the gradients.

    Inside the ``with`` block, trainable `Variable`s are followed through their operators, NumPy ufuncs and
    the functions of ``autograd.numpy``. Only NumPy arrays can be differentiated.

    Parameters
    ----------
    watch_accessed_variables : bool, default True
        Whether trainable variables are followed from their first use on. If not, `watch` them.

    Examples
    --------
    >>> from rmsprop import GradientTape, Variable
    >>> x = Variable([1.0, 3.0])
    >>> with GradientTape() as tape:
    ...     loss = x[0] * x[1] ** 2
    >>> tape.gradient(loss, x)
    array([9., 6.], dtype=float32)
    """

    def __init__(self, watch_accessed_variables: bool = True) -> None:
        self._watch_accessed = watch_accessed_variables
        self._watched: dict[int, tuple[Any, Any]] = {}  # id -> (the watched object, its box)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from autograd.tracer import box_types, trace_stack

        box_types.add(Variable)  # or else an operator between a box and a variable would lose the latter's part
        self._trace = self._open.enter_context(trace_stack.new_trace())
        self._token = recording.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        recording.reset(self._token)
        self._open.close()

    def watch(self, source: Any) -> Any:
        """Follow a variable or an array from here on.

        Parameters
        ----------
        source : Variable or numpy.ndarray

        Returns
        -------
        object
            The traced value. For a plain array, only what is computed from this value is followed.

        Raises
        ------
        TypeError
            If `source` is of another array library, or not of a floating-point or complex dtype.
        """
        if id(source) not in self._watched:
            self._watched[id(source)] = source, self._box(source)
        return self._watched[id(source)][1]

    def read(self, variable: Variable) -> Any:
        """Return the traced value of a variable that is watched, the plain one of any other."""
        if id(variable) in self._watched:
            return self._watched[id(variable)][1]
        follow = self._watch_accessed and variable.trainable and _is_differentiable(variable.array)
        return self.watch(variable) if follow else variable.array

    @staticmethod
    def traced(function: Any) -> Any:
        """Return the form of a NumPy function that autograd can follow."""
        from autograd.tracer import trace_primitives_map

        return trace_primitives_map.get(function, function)

    def gradient(self, target: Any, sources: Any, output_gradients: Array | None = None) -> Any:
        """Return the gradient of `target` with respect to each of `sources`.

        Parameters
        ----------
        target : traced value
            What was computed inside the ``with`` block. If it is no scalar, its elements are summed.
        sources : Variable, array, or list or tuple of these
        output_gradients : array_like, shape of `target`, optional
            Weights of the elements of `target` instead of ones.

        Returns
        -------
        array or None, or list of these
            In the shape of `sources`; None where `target` does not depend on the source. Gradients by
            complex sources are ``dL/dRe + i dL/dIm``, as `RMSprop.apply_gradients` takes them.

        Raises
        ------
        ValueError
            If `output_gradients` has another shape than `target`.
        """
        from autograd.core import vspace
        from autograd.tracer import isbox

        outgrads: dict[Any, tuple[Any, bool]] = {}
        target = self.read(target) if isinstance(target, Variable) else target
        if isbox(target):
            value = target._value
            weights = vspace(value).ones() if output_gradients is None else np.asarray(output_gradients)
            if np.shape(weights) != np.shape(value):
                raise ValueError(f"output_gradients has shape {np.shape(weights)}, not {np.shape(value)}.")
            outgrads = _backward(weights, target._node)
        if isinstance(sources, list | tuple):
            return [self._gradient_of(source, outgrads) for source in sources]
        return self._gradient_of(sources, outgrads)

    def _box(self, source: Any) -> Any:
        from autograd.core import VJPNode
        from autograd.tracer import new_box

        array = source.array if isinstance(source, Variable) else source
        if not _is_differentiable(array):
            raise TypeError(
                f"GradientTape differentiates NumPy arrays of real or complex numbers; given {_described(source)}."
                f" For other libraries, let the loss return (value, gradients)."
            )
        return new_box(array, self._trace, VJPNode.new_root())

    def _gradient_of(self, source: Any, outgrads: dict[Any, tuple[Any, bool]]) -> Array | None:
        watched = self._watched.get(id(source))
        found = watched and outgrads.get(watched[1]._node)
        if not found:
            return None
        gradient = np.asarray(found[0], dtype=source.dtype)
        return np.conj(gradient) if np.iscomplexobj(gradient) else gradient


def _backward(weights: Array, end: Any) -> dict[Any, tuple[Any, bool]]:
    """Run autograd's reverse pass and return what arrives at every root."""
    from autograd.core import add_outgrads
    from autograd.util import toposort

    outgrads, roots = {end: (weights, False)}, {}
    for node in toposort(end):
        outgrad = outgrads.pop(node)
        if not node.parents:
            roots[node] = outgrad
        for parent, ingrad in zip(node.parents, node.vjp(outgrad[0]), strict=True):
            outgrads[parent] = add_outgrads(outgrads.get(parent), ingrad)
    return roots


def _is_differentiable(array: Any) -> bool:
    return isinstance(array, np.ndarray) and dtypes.name_of(array.dtype) in dtypes.COMPUTE


def _described(source: Any) -> str:
    array = source.array if isinstance(source, Variable) else source
    return f"{type(array).__module__}.{type(array).__name__} of dtype {getattr(array, 'dtype', None)}"
