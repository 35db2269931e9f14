"""The tape for losses over NumPy arrays, by HIPS autograd."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Self

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, is_array
from rmsprop.backends import Gradient
from rmsprop.tapes.recorder import Recorder, refuse_complex, wants_zeros, zeros_of
from rmsprop.variables.nested import Tree, flatten, mapped
from rmsprop.variables.variable import array_of, described


class GradientTape(Recorder):
    """Record what is computed from variables, then give the gradients.

    Inside the ``with`` block, trainable `Variable`s are followed through their operators, NumPy's functions and
    those of ``autograd.numpy``. Only NumPy arrays can be differentiated, and only once: tapes can't be nested.
    Values inside are traced ones, of which ``autograd.tracer.getval`` gives the number. After the block, they are
    numbers: ``float(loss)``, ``f"{loss:.4f}"`` and ``loss.item()`` work, and nothing more is recorded.

    Parameters
    ----------
    persistent : bool, default False
        Not needed: gradients can be asked for any number of times.
    watch_accessed_variables : bool, default True
        Whether trainable variables are followed from their first use on. If not, `watch` them.

    Notes
    -----
    A source that is only read by arrays of integers along its first axis, as in ``table[ids]`` or
    ``anp.take(table, ids, axis=0)``, has `IndexedSlices` as its gradient, as in Keras: with all rows in the order
    in which they were read, those that were read twice listed twice. That is not so of a single integer, slices,
    masks and tuples, nor if the source is also read in any other way. As with every sparse gradient, rows that
    were not read stay as they are, also with momentum, unless ``lazy=False``; clipping sees the rows before those
    of the same index are summed; a step with a constraint raises ``RuntimeError``; and ``state_dtype="uint8"``
    needs rows of at least 64 elements. For a dense gradient, read ``table[:][ids]``.

    Examples
    --------
    >>> from rmsprop import GradientTape, Variable
    >>> x = Variable([1.0, 3.0])
    >>> with GradientTape() as tape:
    ...     loss = x[0] * x[1] ** 2
    >>> tape.gradient(loss, x)
    array([9., 6.], dtype=float32)
    >>> f"{loss:.2f}"
    '9.00'
    """

    def __enter__(self) -> Self:
        tracing = _tracing()  # which may fail, and so comes before anything is recorded
        super().__enter__()
        self._block = tracing.Block()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__()
        self._block.close()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        trace, self._block.trace = self._block.trace, _tracing().CLOSED
        try:
            yield
        finally:
            self._block.trace = trace

    def gradient(
        self,
        target: Any,
        sources: Tree,
        output_gradients: Array | None = None,
        unconnected_gradients: str = "none",
    ) -> Any:
        """Return the gradient of `target` with respect to each of `sources`.

        Parameters
        ----------
        target : traced value
            What was computed inside the ``with`` block, or a list of such. Elements and targets are summed.
        sources : Variable or array, or nested lists, tuples and dicts of these
        output_gradients : array_like, shape of `target`, or a number, optional
            Weights of the elements of `target` instead of ones.
        unconnected_gradients : {"none", "zero"}, default "none"
            What is returned where `target` does not depend on the source: None, or an array of zeros.

        Returns
        -------
        array, IndexedSlices or None, in the structure of `sources`
            `IndexedSlices` for what is only read by arrays of integers. Gradients by complex sources are
            ``dL/dRe + i dL/dIm``, as `RMSprop.apply_gradients` takes them.

        Raises
        ------
        ValueError
            If `output_gradients` has another shape than `target`.
        TypeError
            If `target` or `output_gradients` is complex, or `target` is an array of objects, which plain NumPy
            makes of traced values.
        """
        has_zeros = wants_zeros(unconnected_gradients)
        arrivals: dict[Any, Arrivals] = {}
        targets = [self._latest(each) for each in flatten(target)]
        for each in targets:
            _check_target(each)
        for each in targets:
            if _following().isbox(each):
                _backward(_weights(output_gradients, each._value), each._node, arrivals)

        def gradient_of(source: Any) -> Gradient | None:
            gradient = self._gradient_of(source, arrivals)
            return zeros_of(source) if gradient is None and has_zeros else gradient

        return mapped(gradient_of, sources)

    def _new_value(self, source: Any) -> Any:
        array = array_of(source)
        if not (is_array(array) and self._can_trace(array)):
            raise TypeError(
                f"GradientTape differentiates NumPy arrays of {', '.join(dtypes.COMPUTE)}; given {type(array)} "
                f"{described(source)}. For others, use a TorchTape, or let the loss return (value, gradients)."
            )
        # A copy, since steps and assignments change the array itself before the gradients are asked for.
        return _tracing().Traced.root(array.copy(), self._block)

    def _can_trace(self, array: Array) -> bool:
        return isinstance(array, np.ndarray) and super()._can_trace(array)

    def _gradient_of(self, source: Any, arrivals: "dict[Any, Arrivals]") -> Gradient | None:
        """Return what has arrived at the values that a source has had: rows, if there is nothing else."""
        arrived = [arrivals[box._node] for box in self._values(source) if box._node in arrivals]
        parts = [each.dense for each in arrived if each.dense is not None]
        rows = [part for each in arrived for part in each.rows]
        if not parts and not rows:
            return None
        if not parts:
            values = np.concatenate([_conjugate(part.values, source) for part in rows])
            return IndexedSlices(values, np.concatenate([part.indices for part in rows]), tuple(source.shape))
        dense = np.array(sum(parts[1:], parts[0]), dtype=source.dtype)
        for part in rows:
            np.add.at(dense, part.indices, part.values)
        return _conjugate(dense, source)


class Arrivals:
    """What the reverse pass brings to a root: the sum of all dense gradients, and rows."""

    __slots__ = ("dense", "rows")

    def __init__(self) -> None:
        self.dense: Any = None
        self.rows: list[Any] = []


@cache
def _following() -> ModuleType:
    from rmsprop.tapes import following

    return following


@cache
def _tracing() -> ModuleType:
    """Import autograd when a loss first needs it."""
    from rmsprop.tapes import tracing

    return tracing


def _check_target(target: Any) -> None:
    """Raise ``TypeError`` for a target that can't be differentiated."""
    value = target._value if _following().isbox(target) else target
    if isinstance(value, np.ndarray) and value.dtype == object:
        raise TypeError("the target is an array of objects: build it with functions of autograd.numpy.")
    if np.iscomplexobj(value):
        refuse_complex(np.result_type(value))


def _weights(given: Any, value: Any) -> Any:
    """Return the weights of the elements of a target."""
    shape = np.shape(value)
    if given is None:
        return np.ones(shape, np.result_type(value))
    weights = np.asarray(array_of(given))
    if np.iscomplexobj(weights):
        raise TypeError(f"output_gradients must be real, as the target is; given {weights.dtype}.")
    if weights.shape not in ((), shape):
        raise ValueError(f"output_gradients has shape {weights.shape}, not {shape}.")
    return np.broadcast_to(weights, shape)


def _conjugate(gradient: Any, source: Any) -> Any:
    """Return autograd's gradient in the dtype of the source; of a complex one, what leads uphill."""
    gradient = np.asarray(gradient, dtype=source.dtype)
    return np.conj(gradient) if np.iscomplexobj(gradient) else gradient


def _backward(weights: Array, end: Any, arrivals: dict[Any, Arrivals]) -> None:
    """Run autograd's reverse pass, and add what it brings to every root."""
    from autograd.core import add_outgrads
    from autograd.util import toposort

    outgrads: dict[Any, Any] = {end: (weights, False)}
    for node in toposort(end):
        outgrad = outgrads.pop(node, None)
        if not node.parents:
            arrived = arrivals.setdefault(node, Arrivals())
            if outgrad is not None:
                arrived.dense = outgrad[0] if arrived.dense is None else arrived.dense + outgrad[0]
            continue
        for parent, ingrad in zip(node.parents, node.vjp(outgrad[0]), strict=True):
            if type(ingrad) is IndexedSlices:  # only roots get these
                arrivals.setdefault(parent, Arrivals()).rows.append(ingrad)
            else:
                outgrads[parent] = add_outgrads(outgrads.get(parent), ingrad)
