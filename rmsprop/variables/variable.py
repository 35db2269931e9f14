"""A named array that optimizers update, of any array library."""

import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import (
    Absent,
    Array,
    DType,
    Host,
    as_beside,
    checked_numbers,
    detached,
    is_array,
    moved_beside,
    namespace,
    own,
    refuse_traced,
    shared,
    to_numpy,
    unrecorded,
)
from rmsprop.backends import is_updated_in_place
from rmsprop.variables.observers import recording, tell_tapes
from rmsprop.variables.operators import ValueOperators, value_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Variable(ValueOperators):
    """An array with a name, updated by an optimizer; what ``tf.Variable`` is to TensorFlow.

    Plain arrays of NumPy and CuPy, and tensors of PyTorch, need no `Variable` to be optimised. It serves arrays
    that cannot be changed in place (JAX, Dask), losses that a tape differentiates, constraints, and names in
    messages.

    Parameters
    ----------
    initial_value : array, number or nested list, or a callable that returns one
        It is copied. Python floats become float32, the default of Keras.
    trainable : bool, default True
        Whether a tape records the variable without being told to `watch` it.
    name : str, optional
        Used in messages and in the names of the optimizer's slots. Defaults to ``"Variable"``.
    dtype : dtype, optional
        Dtype to convert `initial_value` to, in the terms of its own array library.
    constraint : callable, optional
        Maps the updated array to the array to keep, after each step with a dense gradient.

    Raises
    ------
    TypeError
        If `initial_value` is no array and cannot become one.

    Examples
    --------
    >>> from rmsprop import Variable
    >>> v = Variable([1.0, 2.0], name="weights")
    >>> v.assign_add([1.0, 1.0])
    Variable('weights', array([2., 3.], dtype=float32))
    >>> 2 * v + v[0]
    array([6., 8.], dtype=float32)
    """

    __slots__ = ("__weakref__", "array", "constraint", "name", "trainable")

    array: Array
    """The array itself, never traced. To change its values, use `assign`, or change them in place.

    It can be replaced only if it is of a library that never changes arrays in place: what has been planned for
    the memory of any other would go on there.
    """

    def __init__(
        self,
        initial_value: Any,
        trainable: bool = True,
        name: str | None = None,
        dtype: DType = None,
        constraint: "Callable[[Array], Array] | None" = None,
    ) -> None:
        initial = shared(value_of(initial_value() if callable(initial_value) else initial_value))
        self.array = _own_copy(initial, dtype)
        self.trainable = trainable
        self.name = name or "Variable"
        self.constraint = constraint

    @classmethod
    def around(cls, array: Array, name: str | None = None, trainable: bool = True) -> "Variable":
        """Return a variable that holds the very array it is given, without a copy.

        Unpickled from memory that others may have, as the buffers of protocol 5, it holds a copy.
        """
        variable = cls.__new__(cls)
        variable.array, variable.trainable, variable.constraint = array, trainable, None
        variable.name = name or "Variable"
        return variable

    def __setstate__(self, state: tuple[dict[str, Any] | None, dict[str, Any]]) -> None:
        attributes, slots = state
        for name, value in {**(attributes or {}), **slots}.items():
            setattr(self, name, own(value) if name == "array" else value)

    def __setattr__(self, name: str, value: Any) -> None:
        old = getattr(self, "array", None) if name == "array" else None
        if old is not None and old is not value and is_updated_in_place(old):
            raise AttributeError(
                f"the array of {self.name} can't be replaced; expected a change of its values by assign()."
            )
        super().__setattr__(name, value)

    @property
    def value(self) -> Array:
        """The array; inside of a tape, in a form that the tape can follow."""
        tape = recording.get()
        return self.array if tape is None else tape.read(self)

    def read_value(self) -> Array:
        """Return `value`, as ``tf.Variable`` does."""
        return self.value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> Any:
        """Dtype of the array, in the terms of its own library."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.array.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def numpy(self) -> Host:
        """Return a NumPy copy of the value, which no tape follows."""
        return to_numpy(self.array)

    def assign(self, value: Any) -> "Variable":
        """Replace the value, keeping shape, dtype and, where arrays can be changed, memory.

        Parameters
        ----------
        value : array_like, shape of the variable
            Converted to the variable's dtype and array library.

        Returns
        -------
        Variable
            The variable itself.

        Raises
        ------
        ValueError
            If the shape differs.
        TypeError
            If complex values are given to a real variable.
        """
        with unrecorded(self.array):
            new = self._converted(value)
            tell_tapes(self)
            if is_updated_in_place(self.array):
                self.array[...] = new
            else:
                self.array = new
        return self

    def assign_add(self, delta: Any) -> "Variable":
        """Add `delta` to the value; see `assign`."""
        with unrecorded(self.array):
            return self.assign(self.array + self._converted(delta))

    def assign_sub(self, delta: Any) -> "Variable":
        """Subtract `delta` from the value; see `assign`."""
        with unrecorded(self.array):
            return self.assign(self.array - self._converted(delta))

    def _converted(self, value: Any) -> Array:
        """Return `value` as an array of the variable's library, shape and dtype."""
        value, xp = value_of(value), namespace(self.array)
        refuse_traced(value, f"{self.name} can't be assigned a value")
        if isinstance(value, np.ndarray | np.generic) and not isinstance(self.array, np.ndarray):
            value = np.asarray(value, order="C")
        checked_numbers(value, self.name)
        new = value if type(value) is type(self.array) else as_beside(value, self.array)
        if tuple(new.shape) != self.shape:
            raise ValueError(f"{self.name} has shape {self.shape}; given a value of shape {tuple(new.shape)}.")
        if dtypes.is_complex(dtypes.name_of(new.dtype)) and not dtypes.is_complex(dtypes.name_of(self.dtype)):
            raise TypeError(f"{self.name} is real ({self.dtype}); given a complex value ({new.dtype}).")
        return xp.astype(moved_beside(new, self.array), self.dtype)

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> Host:
        tape = recording.get()
        if tape is not None and not tape.is_stopped:
            raise TypeError(
                f"{self.name} is being converted to a NumPy array inside a tape, which would lose its gradient: "
                f"use its .value with functions of autograd.numpy or PyTorch, or .numpy() for a constant."
            )
        array = self.array if isinstance(self.array, np.ndarray) else to_numpy(self.array)
        if copy is None and dtype in (None, array.dtype):
            return array
        return np.array(array, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            kwargs["out"] = tuple(map(value_of, kwargs["out"]))
        return getattr(ufunc, method)(*map(value_of, inputs), **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return func(*_unwrapped(args), **{key: _unwrapped(item) for key, item in kwargs.items()})

    # While a tape records, autograd's functions take a variable for one of their own boxes, by these attributes.

    @property
    def _trace(self) -> int:
        return getattr(self.value, "_trace", -2)  # below all traces: a constant

    @property
    def _node(self) -> Any:
        return self.value._node

    @property
    def _value(self) -> Any:
        value = self.value
        return getattr(value, "_value", value)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            f"elements of {self.name} can't be assigned: use assign() with the whole value. Outside of a tape, "
            f"the elements of its .array may be, if its library can do that."
        )

    def __format__(self, specification: str) -> str:
        if not specification:
            return str(self)
        array = self.numpy()
        return format(array if array.shape else array.item(), specification)

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.array!r})"


def array_of(source: "Variable | Array") -> Array:
    """Return the array of a variable, or the array itself; never traced."""
    return source.array if isinstance(source, Variable) else source


def _own_copy(initial: Any, dtype: DType) -> Array:
    """Return a copy of an initial value, as an array."""
    checked_numbers(initial, "initial_value")
    if is_array(initial):
        with unrecorded(initial):
            return namespace(initial).asarray(detached(initial), dtype=dtype, copy=True)
    array = np.array(initial, dtype=dtype)
    if dtype is None and array.dtype == np.float64 and not isinstance(initial, np.generic):
        array = array.astype(np.float32)
    return array


def _unwrapped(arguments: Any) -> Any:
    """Replace variables in nested lists and tuples by their values."""
    if isinstance(arguments, list | tuple):
        return type(arguments)(map(_unwrapped, arguments))
    return value_of(arguments)


def described(variable: Any) -> str:
    """Return how messages call a variable: by its name, dtype and shape, or what was given instead of one."""
    if not isinstance(variable, Variable | Absent) and not is_array(variable):
        return f"({type(variable).__name__} {str(variable)[:40]!r})"
    name = f"{variable.name!r}, " if isinstance(variable, Variable) else ""
    return f"({name}{dtypes.name_of(variable.dtype)}, shape {tuple(variable.shape)})"
