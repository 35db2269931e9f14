"""Losses in SciPy's forms, with gradients of their own or by the tape, evaluated on copies of the variables."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import (
    Array,
    Host,
    as_beside,
    as_floats,
    copied,
    detached,
    is_array,
    namespace,
    on_device,
    refuse_subclass,
    to_numpy,
)
from rmsprop.tapes.losses import tape_of, value_and_gradients
from rmsprop.variables.nested import Tree, is_leaf, matched, named, outline, rebuilt, start_of
from rmsprop.variables.variable import Variable, array_of, described

EPSILONS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "complex64": 2.0**-23}
"""Distance of 1 from the next number of each dtype that is coarser than float64."""


class Loss:
    """A loss as a function of one of its arrays while the others stay.

    Attributes
    ----------
    x0 : array, Variable, or nested list, tuple or dict of these
        With arrays in place of numbers.
    names : list of str
    arrays : list of arrays
        Those of the start, which nothing changes.
    precision : float
        The epsilon of the coarsest dtype among arrays, and values and gradients so far.
    evaluations : int
        How often the loss was called.
    """

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...], jac: Any, x0: Tree) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be a function; given {fun!r}.")
        if not (jac is None or isinstance(jac, bool | np.bool_) or callable(jac)):
            raise TypeError(
                f"jac must be True if fun returns (value, gradients), a function that returns the gradients, or "
                f"None for those of the tape; given {jac!r}."
            )
        jac = bool(jac) if isinstance(jac, bool | np.bool_) else jac
        self._fun, self._args, self._jac, self.x0 = fun, args, jac, start_of(x0)
        self.names, self.arrays = _checked(self.x0)
        self.precision = max(map(epsilon_of, self.arrays))
        self.evaluations = 0

    def at_start(self) -> tuple[float, list[Any]]:
        """Return the value and the gradients, as they were given, in the order of the names."""
        value, gradients = self._evaluated(self.arrays)
        if callable(self._jac):
            gradients = self._jac(self._copies(self.arrays), *self._args)
        if self._jac is True or callable(self._jac):
            listed = matched(gradients, self.x0)
            if listed is None:
                raise ValueError(
                    f"The gradients must have the structure of x0, {outline(self.x0)}; given {outline(gradients)}."
                )
        else:
            listed = self._differentiated()
        return value, listed

    def along(self, position: int, direction: Host) -> Callable[[float], float]:
        """Return the loss as a function of how far one of the arrays is moved in a direction."""
        array = self.arrays[position]
        with on_device(array):
            way = as_beside(direction, array, array.dtype)

        def value(step: float) -> float:
            with on_device(array):
                moved = namespace(array).asarray(array + step * way)
            with np.errstate(all="ignore"):  # it is not the user who went there
                return self._evaluated([*self.arrays[:position], moved, *self.arrays[position + 1 :]])[0]

        return value

    def _evaluated(self, arrays: list[Array]) -> tuple[float, Any]:
        """Return the value of the loss, and the gradients if it returns them."""
        self.evaluations += 1
        result = self._fun(self._copies(arrays), *self._args)
        if self._jac is not True:
            if isinstance(result, tuple | list):
                raise TypeError(
                    f"fun returned a {type(result).__name__}; if that is (value, gradients), pass jac=True."
                )
            return self._number(result), None
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TypeError(
                f"With jac=True, fun must return (value, gradients); it returned {outline(result)}. If it returns "
                f"the value alone, pass the function of the gradients as jac, or jac=None for a loss in NumPy."
            )
        return self._number(result[0]), result[1]

    def _copies(self, arrays: list[Array]) -> Tree:
        """Return arrays in the structure of the variables, as copies, which the loss may change."""
        return rebuilt(self.x0, map(copied, arrays))

    def _differentiated(self) -> list[Any]:
        """Return the gradients by the tape."""
        tape = tape_of(self.arrays)()
        self.evaluations += 1
        _, pairs = value_and_gradients(lambda x: self._fun(x, *self._args), self._copies(self.arrays), tape)
        return [gradient for gradient, _ in pairs]

    def _number(self, value: Any) -> float:
        """Return the value of a loss as a number, and remember its precision."""
        value = array_of(value)
        host = np.asarray(to_numpy(value) if is_array(value) else value)
        if host.dtype.kind == "c":
            raise TypeError(
                f"fun must return a real value; given {host.dtype}. Return its .real, if that is meant."
            )
        if host.size != 1 or not is_numeric(host):
            raise TypeError(f"fun must return a number as its value; given {outline(value)} {str(value)[:60]!r}.")
        self.precision = max(self.precision, epsilon_of(value if is_array(value) else host))
        return float(host.reshape(()).astype(np.float64))


def epsilon_of(array: Array) -> float:
    """Return the epsilon of an array's dtype, or that of float64 for integers."""
    return EPSILONS.get(dtypes.name_of(array.dtype), 2.0**-52)


def is_numeric(array: Host) -> bool:
    """Tell whether an array of NumPy holds numbers."""
    return array.dtype.kind in "biufc" or array.dtype.name in dtypes.COMPUTE


def _checked(x0: Tree) -> tuple[list[str], list[Array]]:
    """Return the names of variables and their arrays; ``TypeError`` for what can't be differentiated."""
    found = {"x0": x0} if is_leaf(x0) and not isinstance(x0, Variable) else dict(named(x0))
    for name, variable in found.items():
        array = as_floats(array_of(variable))
        if not is_array(array):
            raise TypeError(f"{name} is {described(variable)}; expected an array or a rmsprop.Variable.")
        refuse_subclass(array, name)
        if dtypes.name_of(array.dtype) not in dtypes.COMPUTE:
            raise TypeError(
                f"{name} {described(variable)} must be of {', '.join(dtypes.COMPUTE)}; convert it first."
            )
    if not found:
        raise ValueError(f"x0 must have at least one array; given {x0!r}.")
    return [*found], [detached(as_floats(array_of(variable))) for variable in found.values()]
