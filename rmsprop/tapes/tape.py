"""The interface of a tape, by which losses are differentiated."""

from typing import Any, Protocol, Self

from rmsprop.arrays.libraries import Array
from rmsprop.variables.nested import Tree


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

    def gradient(self, target: Any, sources: Tree, output_gradients: Array | None = None) -> Any:
        """Return a list with the gradient of `target` by each of the list `sources`.

        Each is an array of the source's own library and shape, an `IndexedSlices`, or None where `target` does not
        depend on the source; by a complex source it is ``dL/dRe + i dL/dIm``. The elements of `target` are
        summed, with the weights `output_gradients` where given; one number is the weight of all.
        """
