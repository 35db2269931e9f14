# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
"""Steps on arrays that share their memory: by the backend that updates it."""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array
from rmsprop.arrays.memory import strides_of
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Backend, Gradient, Refresh, Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_shared.twins import Twin, twin_of


class SharedBackend(Backend):
    """A backend that hands views of arrays to another one, which updates their memory.

    Parameters
    ----------
    through : Backend
        That for NumPy or for CuPy.
    """

    in_place = True
    per_device = True
    takes_windows = True

    def __init__(self, through: Backend) -> None:
        self.through = through

    @abstractmethod
    def exported(self, array: Array) -> Array:
        """Return a view of the memory of an array that has passed all checks, or of a gradient or its indices.

        A gradient may be copied. The view keeps the memory alive, but not the array.
        """

    @abstractmethod
    def facts(self, array: Array) -> tuple[Any, ...]:
        """Return what tells where an array lies in memory, first the address, and what is there."""

    def changed(self, arrays: Sequence[Array]) -> None:
        """Let the library of arrays know that their memory has been written to."""

    def are_plain(self, pairs: Sequence[tuple[Array, Any]], complex_variables: Sequence[Array]) -> bool:
        """Tell whether the memory of gradients and variables holds their very numbers, and nothing traces them."""
        return True

    def working(self, array: Array) -> AbstractContextManager[Any]:
        """Return the context in which the memory of an array may be worked on."""
        return nullcontext()

    def overlapping(self, arrays: Sequence[Array]) -> tuple[int, int] | None:
        """Return the positions of two arrays that share memory, if any do."""
        return self.through.overlapping([self.exported(array) for array in arrays])

    def in_range(self, indices: Array, rows: int) -> bool:
        """Tell whether all indices are those of rows."""
        with self.working(indices):
            return self.through.in_range(self.exported(indices), rows)

    def squared_norms(self, gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
        """Return the sum of ``|scale * g|**2`` of each gradient, after clipping by value."""
        return self.through.squared_norms([self.viewed(g) for g in gradients], hyper, scale)

    def first_nonfinite(self, gradients: Sequence[Gradient]) -> int | None:
        """Return the position of the first gradient with a NaN or an infinity, or None."""
        return self.through.first_nonfinite([self.viewed(g) for g in gradients])

    def check_step(
        self, parameters: Sequence[Updatable], gradients: Sequence[Gradient], positions: Sequence[int]
    ) -> bool:
        """Raise ``ValueError`` if variables share memory that did not when they became known."""
        moved = [p for p in parameters if p.plan is not None and not p.plan.lies_at(self._place(p))]
        if moved and (overlap := self.overlapping([p.variable.array for p in parameters])) is not None:
            first, second = (f"{positions[i]} {parameters[i]}" for i in overlap)
            raise ValueError(
                f"Variable {first} has elements that share memory with each other."
                if overlap[0] == overlap[1]
                else f"Variables {first} and {second} share memory since one was given other memory than it had, "
                f"so that one's update would change the other; expected memory of its own for each."
            )
        return False

    def prepare(
        self, parameters: Sequence[Updatable], gradients: Sequence[Gradient], factors: Any, hyper: Hyperparameters
    ) -> Callable[[], Refresh | None]:
        """Do all of a step that may fail; return what updates all variables and slots."""
        twins, views = self.twins(parameters), [self.viewed(g) for g in gradients]
        arrays = [parameter.variable.array for parameter in parameters]
        if type(factors).__module__ == type(arrays[0]).__module__:
            factors = self.exported(factors)
        with self.working(arrays[0]):
            take = self.through.prepare(twins, views, factors, hyper)
        for parameter, twin in zip(parameters, twins, strict=True):
            parameter.notes = twin.notes
        self.planned(parameters, twins, views, hyper)
        return partial(self._taken, take, arrays)

    def planned(
        self, parameters: Sequence[Updatable], twins: list[Twin], views: Sequence[Gradient], hyper: Hyperparameters
    ) -> None:
        """Keep what takes the same step again, if there is anything."""

    def _taken(self, take: Callable[[], Refresh | None], arrays: list[Array]) -> Refresh | None:
        with self.working(arrays[0]):
            refresh = take()
        self.changed(arrays)
        return refresh

    def twins(self, parameters: Sequence[Updatable]) -> list[Twin]:
        """Return variables and slots as views."""
        return [twin_of(parameter, self._place(parameter), self.exported) for parameter in parameters]

    def viewed(self, gradient: Gradient) -> Gradient:
        """Return a gradient as views."""
        if isinstance(gradient, IndexedSlices):
            return replace(
                gradient, values=self.exported(gradient.values), indices=self.exported(gradient.indices)
            )
        if isinstance(gradient, Windows):
            starts = gradient.starts
            starts = starts if isinstance(starts, np.ndarray) else self.exported(starts)
            return replace(gradient, values=self.exported(gradient.values), starts=starts)
        return self.exported(gradient)

    def _place(self, parameter: Updatable) -> tuple[Any, ...]:
        return self.facts(parameter.variable.array)


def memory_of(view: Array, address: int) -> Hashable:
    """Return what two views of the same elements have in common."""
    return address, tuple(view.shape), strides_of(view), view.dtype.str
