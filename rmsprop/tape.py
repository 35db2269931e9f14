"""Differentiation of losses over NumPy arrays, by HIPS autograd."""

from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from rmsprop import dtypes
from rmsprop.arrays import Array
from rmsprop.parameters import flatten
from rmsprop.variable import Variable, recording


class GradientTape:
    """Record what is computed from variables, then give the gradients.

    Inside the ``with`` block, trainable `Variable`s are followed through their operators, NumPy ufuncs and
    the functions of ``autograd.numpy``. Only NumPy arrays can be differentiated, and only once: tapes can't be
    nested. Values inside are traced ones, of which ``autograd.tracer.getval`` gives the number.

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
        self._watched: dict[int, tuple[Any, list[Any]]] = {}  # id -> (the watched object, its boxes)
        self._assigned: set[int] = set()
        self._open = ExitStack()
        self._trace: int | None = None

    def __enter__(self) -> Self:
        from autograd.tracer import box_types, trace_stack

        if recording.get() is not None:
            raise RuntimeError("a GradientTape is recording already; tapes can't be nested.")
        box_types.add(Variable)  # or else an operator between a box and a variable would lose the latter's part
        self._trace = self._open.enter_context(trace_stack.new_trace())
        self._token = recording.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        recording.reset(self._token)
        self._open.close()
        self._trace = None

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
        if self._trace is None:
            raise RuntimeError("watch() belongs inside of the tape's `with` block.")
        known = self._watched.get(id(source))
        if known is None or id(source) in self._assigned:
            known = source, [*(known[1] if known else []), self._box(source)]
            self._watched[id(source)] = known
            self._assigned.discard(id(source))
        return known[1][-1]

    def read(self, variable: Variable) -> Any:
        """Return the traced value of a variable that is watched, the plain one of any other."""
        is_watched = id(variable) in self._watched
        accessed = self._watch_accessed and variable.trainable and _is_differentiable(variable.array)
        return self.watch(variable) if is_watched or accessed else variable.array

    def forget(self, variable: Variable) -> None:
        """Take note that a variable got a new value, of which what was computed before knows nothing."""
        self._assigned.add(id(variable))

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
            What was computed inside the ``with`` block, or a list of such. Elements and targets are summed.
        sources : Variable or array, or nested lists, tuples and dicts of these
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
        TypeError
            If `target` is an array of objects, which plain NumPy makes of traced values.
        """
        arrivals: dict[Any, Any] = {}
        for each in flatten(target):
            self._collect(each, output_gradients, arrivals)
        return self._gradients(sources, arrivals)

    def _collect(self, target: Any, weights: Array | None, arrivals: dict[Any, Any]) -> None:
        """Add what arrives at every root, coming from one target."""
        from autograd.core import add_outgrads, vspace
        from autograd.tracer import isbox

        if isinstance(target, Variable) and id(target) in self._watched:
            target = self._watched[id(target)][1][-1]
        if isinstance(target, np.ndarray) and target.dtype == object:
            raise TypeError("the target is an array of objects: build it with functions of autograd.numpy.")
        if not isbox(target):
            return
        box: Any = target
        value = box._value
        weights = vspace(value).ones() if weights is None else np.asarray(weights)
        if np.shape(weights) != np.shape(value):
            raise ValueError(f"output_gradients has shape {np.shape(weights)}, not {np.shape(value)}.")
        for root, outgrad in _backward(weights, box._node).items():
            arrivals[root] = add_outgrads(arrivals.get(root), outgrad[0])

    def _gradients(self, sources: Any, arrivals: dict[Any, Any]) -> Any:
        """Return the gradients in the structure of the sources."""
        if isinstance(sources, dict):
            return {key: self._gradients(source, arrivals) for key, source in sources.items()}
        if isinstance(sources, list | tuple):
            return [self._gradients(source, arrivals) for source in sources]
        return self._gradient_of(sources, arrivals)

    def _box(self, source: Any) -> Any:
        from autograd.core import VJPNode
        from autograd.tracer import new_box

        array = source.array if isinstance(source, Variable) else source
        if not _is_differentiable(array):
            raise TypeError(
                f"GradientTape differentiates NumPy arrays of real or complex numbers; given {_described(source)}."
                f" For other libraries, let the loss return (value, gradients)."
            )
        # A copy, since steps and assignments change the array itself before the gradients are asked for.
        return new_box(array.copy(), self._trace, VJPNode.new_root())

    def _gradient_of(self, source: Any, arrivals: dict[Any, Any]) -> Array | None:
        boxes = self._watched.get(id(source), (source, []))[1]
        parts = [arrivals[box._node][0] for box in boxes if box._node in arrivals]
        if not parts:
            return None
        gradient = np.array(sum(parts[1:], parts[0]), dtype=source.dtype)
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
