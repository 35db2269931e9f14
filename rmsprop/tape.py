"""What a tape is, and the one for losses over NumPy arrays, by HIPS autograd."""

from contextlib import ExitStack
from typing import Any, Protocol, Self

import numpy as np

from rmsprop import dtypes
from rmsprop.arrays import Array, is_array
from rmsprop.parameters import described, flatten
from rmsprop.recording import Recorder, mapped
from rmsprop.variable import Variable, array_of


class Tape(Protocol):
    """What `RMSprop.minimize` asks of a tape: any library can differentiate arrays of any other by one.

    For a loss that is a callable, `minimize` enters the tape, has it `watch` each variable, calls the loss with
    the traced values, leaves the tape, and asks for the gradients. For a loss that is a value, it only asks for
    the gradients. `GradientTape` and `rmsprop.TorchTape` are tapes, in which `Variable`s have traced values, too.

    Examples
    --------
    A tape for losses that are a polynomial, the same for each element:

    >>> import numpy as np, rmsprop
    >>> from numpy.polynomial import Polynomial
    >>> class PolynomialTape:
    ...     def __enter__(self):
    ...         return self
    ...     def __exit__(self, *exception):
    ...         pass
    ...     def watch(self, source):
    ...         return Polynomial([0, 1])
    ...     def gradient(self, target, sources, output_gradients=None):
    ...         return [target.deriv()(source) for source in sources]
    >>> x = np.array([3.0, -2.0])
    >>> opt = rmsprop.RMSprop(learning_rate=0.1)
    >>> for _ in range(100):
    ...     _ = opt.minimize(lambda p: (p - 1) ** 2, [x], tape=PolynomialTape())
    >>> bool(np.all(np.abs(x - 1) < 0.1))
    True
    """

    def __enter__(self) -> Self:
        """Begin to record."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Stop recording."""

    def watch(self, source: Any) -> Any:
        """Return the traced value of a `Variable` or an array: what the loss is to compute with."""

    def gradient(self, target: Any, sources: Any, output_gradients: Array | None = None) -> Any:
        """Return a list with the gradient of `target` by each of the list `sources`.

        Each is an array of the source's own library and shape, an `IndexedSlices`, or None where `target` does not
        depend on the source; by a complex source it is ``dL/dRe + i dL/dIm``. The elements of `target` are
        summed, with the weights `output_gradients` where given.
        """


class GradientTape(Recorder):
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
        super().__init__(watch_accessed_variables)
        self._open = ExitStack()
        self._trace: int | None = None

    def __enter__(self) -> Self:
        from autograd.tracer import box_types, trace_stack

        super().__enter__()
        box_types.add(Variable)  # or else an operator between a box and a variable would lose the latter's part
        self._trace = self._open.enter_context(trace_stack.new_trace())
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__()
        self._open.close()

    def traced(self, function: Any) -> Any:
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
        return mapped(lambda source: self._gradient_of(source, arrivals), sources)

    def _collect(self, target: Any, weights: Array | None, arrivals: dict[Any, Any]) -> None:
        """Add what arrives at every root, coming from one target."""
        from autograd.core import add_outgrads, vspace
        from autograd.tracer import isbox

        target = self._latest(target)
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

    def _new_value(self, source: Any) -> Any:
        from autograd.core import VJPNode
        from autograd.tracer import new_box

        array = array_of(source)
        if not (is_array(array) and self._can_trace(array)):
            raise TypeError(
                f"GradientTape differentiates NumPy arrays of {', '.join(dtypes.COMPUTE)}; given {type(array)} "
                f"{described(source)}. For others, use a TorchTape, or let the loss return (value, gradients)."
            )
        # A copy, since steps and assignments change the array itself before the gradients are asked for.
        return new_box(array.copy(), self._trace, VJPNode.new_root())

    def _can_trace(self, array: Array) -> bool:
        return isinstance(array, np.ndarray) and super()._can_trace(array)

    def _gradient_of(self, source: Any, arrivals: dict[Any, Any]) -> Array | None:
        parts = [arrivals[box._node][0] for box in self._values(source) if box._node in arrivals]
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
