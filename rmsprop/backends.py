"""Backends: what each must offer, and which one an array gets."""

from collections.abc import Hashable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from rmsprop import dtypes
from rmsprop.arrays import Array, namespace
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.variable import Variable


class Hyperparameters(NamedTuple):
    """The numbers of one step, and the variant of the formula, as a backend receives them."""

    learning_rate: float
    rho: float
    momentum: float | None
    """None where there is no momentum, which is another formula than a momentum of 0."""
    epsilon: float
    epsilon_in_sqrt: bool
    centered: bool
    clipvalue: float | None
    lazy: bool
    complex_as_real: bool


class Parameter:
    """A variable and its slots, as a backend receives them.

    Attributes
    ----------
    variable : Variable
        The caller's own, or one that the optimizer put around the caller's array.
    is_raw : bool
        Whether the caller uses the array itself, without a `Variable`.
    slots : dict of str to Variable
        ``"rms"`` and, where the optimizer needs them, ``"momentum"`` and ``"mg"``.
    backend : Backend
    """

    __slots__ = ("backend", "is_raw", "shape", "slots", "variable")

    def __init__(self, variable: Variable, is_raw: bool, slots: dict[str, Variable] | None = None) -> None:
        self.variable = variable
        self.is_raw = is_raw
        self.slots = {} if slots is None else slots
        self.shape = variable.shape
        self.backend = backend_of(variable.array)

    def __reduce__(self) -> Any:
        return Parameter, (self.variable, self.is_raw, self.slots)

    @property
    def key(self) -> Any:
        """The object that the caller passes for this parameter."""
        return self.variable.array if self.is_raw else self.variable

    def __str__(self) -> str:
        name = "array" if self.is_raw else repr(self.variable.name)
        return f"{name} ({dtypes.name_of(self.variable.dtype)}, shape {self.shape})"


Gradient = Array | IndexedSlices


class Backend(Protocol):
    """The functions of a backend, which is a module (or any object that has them).

    Everything it receives has been validated by the shared code: gradients have the shape and dtype of their
    variable, and a variable occurs once. Nothing here may fail for reasons that a check could have found.
    """

    def memory(self, array: Array) -> Hashable:
        """Identify the memory that a plain array stands for, so that two views of it are recognised.

        Raises ``TypeError`` if the library's arrays can be optimised in a `Variable` only.
        """

    def check_variable(self, array: Array) -> None:
        """Raise ``TypeError`` or ``ValueError``, without naming it, if an array can't be updated."""

    def overlapping(self, arrays: Sequence[Array]) -> tuple[int, int] | None:
        """Return the positions of two arrays that share memory, if any do."""

    def zeros(self, like: Array, dtype: str) -> Array:
        """Return zeros of the shape, device and, as far as it matters, layout of `like`."""

    def in_range(self, indices: Array, rows: int) -> bool:
        """Tell whether ``0 <= indices < rows`` for all of them."""

    def squared_norms(self, gradients: Sequence[Gradient], hyper: Hyperparameters) -> Array:
        """Return the sum of ``|g|**2`` of each gradient, after clipping by value; shape (n,)."""

    def update(
        self,
        parameters: Sequence[Parameter],
        gradients: Sequence[Gradient],
        factors: Array | None,
        hyper: Hyperparameters,
    ) -> None:
        """Update all variables and slots, with each gradient clipped by value, then times its factor."""


def backend_of(array: Array) -> Backend:
    """Return the backend for an array.

    It is the entry point of the group ``rmsprop.backends`` that is named as the array's library, or else the
    one named ``array_api``.

    Raises
    ------
    TypeError
        If `array` is not of a library that follows the Array API standard.
    """
    return _backend_of_type(type(array)) or _load(namespace(array).__name__)


@cache
def _backend_of_type(kind: type) -> Backend | None:
    # NumPy's own arrays are known without array_api_compat, which takes a while to import.
    return _load("numpy") if issubclass(kind, np.ndarray) else None


@cache
def _load(name: str) -> Backend:
    found = entry_points(group="rmsprop.backends")
    names = {entry.name: entry.value for entry in found}
    return cast("Backend", import_module(names.get(name.removeprefix("array_api_compat."), names["array_api"])))
