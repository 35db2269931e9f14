"""Backends: what each must offer, and which one an array gets."""

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from rmsprop.arrays import Array, namespace
from rmsprop.formula import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices

if TYPE_CHECKING:
    from rmsprop.parameters import Parameter

Gradient = Array | IndexedSlices
Refresh = Callable[[Hyperparameters], None]
"""Brings the hyperparameters of its next replay to a captured step."""


class Replay(Protocol):
    """What takes a step again, with other gradients, and without all of the checks in Python.

    The `prepare` of a backend may keep one in the ``plans`` of its parameters, for the identity of the first one's
    ``key``.
    """

    def accept(self, given: list[Any], slots: tuple[str, ...]) -> Any:
        """Return the gradients in a form for `step` if the step can be taken, else None; nothing is changed.

        It can if the list consists of tuples of dense gradients and the variables as before, all of which would
        pass the checks unchanged, the same slots are used, and no variable has a constraint.
        """

    def step(self, gradients: Any, hyper: Hyperparameters) -> int | None:
        """Take the step, with gradients that have just been accepted and are still alive; clip them as asked.

        Unless ``hyper.nonfinite`` is "propagate", first look for gradients that are not finite: return the
        position of the first one, and change nothing.
        """


class Backend(Protocol):
    """The functions of a backend, which is a module (or any object that has them).

    Everything it receives has been validated by the shared code: gradients have the shape and dtype of their
    variable, and a variable occurs once. Nothing here may fail for reasons that a check could have found.

    A backend may have more functions:

    - ``factors(parameters, gradients, hyper)`` does in fewer calls what `squared_norms` and
      `rmsprop.clipping` do together, and returns what its `prepare` can also take. If ``hyper.nonfinite``
      is "skip", both leave the step out if a gradient is not finite, and count that in the ``tally`` of the plans.
    - ``first_nonfinite(gradients)`` returns the position of the first gradient with a NaN or an infinity, or None;
      without it, functions of the Array API standard find out.
    - ``report_misses(parameter)`` raises ``ValueError`` if rows out of range were found in earlier gradients of a
      variable. With it, `in_range` is asked only if the user wants to wait for the answer, and the update must
      leave out such rows.
    - ``owner(array, is_its_own)`` returns the array that all have to hold who can reach the memory of a plain
      array: itself, or what it is a view of. It returns None if others may share the memory, unless `is_its_own`
      says that they do not. With it, arrays that were replaced are noticed, see `rmsprop.identity`, and there must
      be ``place(array, owner)``, which tells where a view lies, without holding either, and
      ``view(owner, place)``, which returns the view that lies there, also in a copy of the owner. What a step
      leaves behind must not keep variables alive but in ``plan`` and ``plans``.
    - ``address(array)`` tells where an array lies, if that may change, as by ``resize``: then it is refused.
    - ``check_step(parameters, gradients, positions)`` raises errors that only the backend can find, by the
      variables' positions in the step, and tells whether the update will be captured in a graph, to be
      replayed later. Then it returns a function that is called with the hyperparameters of each replay.
    - ``device_of(array)`` returns what arrays must have in common to be given to the backend in one call, such as
      their library and device; without it, they need nothing.
    - ``compact_slot(array, name, state_dtype, label)`` returns the slot `name` of a variable as a `Variable` of
      zeros that is kept in a smaller dtype, and whose `array` is a copy in full. `prepare` will know such slots by
      ``hyper.state_dtype``. Its attribute ``parts`` are the NumPy arrays that it is kept in, by name, as in files:
      the first one has an element for each of the variable. They can be replaced by others of the same kind.
    """

    in_place: bool
    """Whether an array keeps its memory when its values change, by a step or by ``array[...] = values``.

    If so, its memory is copied wherever a step may have to be undone, and a `Variable` keeps its array. If not,
    arrays never change: the step gives other ones to variables and slots.
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
        ...

    def squared_norms(self, gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
        """Return the sum of ``|scale * g|**2`` of each gradient, after clipping by value; shape (n,).

        The scale is another power of two where a square would be too large or too small, see `rmsprop.clipping`.
        """

    def prepare(
        self,
        parameters: "Sequence[Parameter]",
        gradients: Sequence[Gradient],
        factors: Array | None,
        hyper: Hyperparameters,
    ) -> "Callable[[], Refresh | None]":
        """Do all of a step that may fail; return what updates all variables and slots.

        Each gradient is clipped by value, then multiplied by its factor, if there is one, which clips by norm and
        divides by ``hyper.loss_scale``. `factors` have the shape (n, 2): a gradient is multiplied by the first
        number, then by the second one, see `rmsprop.clipping`.
        """
        ...


def backend_of(array: Array) -> Backend:
    """Return the backend for an array.

    It is the entry point of the group ``rmsprop.backends`` that is named as the array's library, or else the
    one named ``array_api``.

    Raises
    ------
    TypeError
        If `array` is not of a library that follows the Array API standard.
    """
    # NumPy's own arrays are known without array_api_compat, which takes a while to import.
    return _load("numpy" if isinstance(array, np.ndarray) else namespace(array).__name__)


def is_updated_in_place(array: Array) -> bool:
    """Tell whether an array keeps its memory when its values change, or is replaced."""
    return isinstance(array, np.ndarray) or backend_of(array).in_place


OWN = {"numpy": "rmsprop_numba", "cupy": "rmsprop_cupy", "array_api": "rmsprop_array_api"}
"""The entry points of this project, for where its metadata are missing, as in a zip of the packages alone."""


@cache
def _load(name: str) -> Backend:
    from importlib.metadata import entry_points  # takes as long as all of `import rmsprop`

    found = entry_points(group="rmsprop.backends")
    names = OWN | {entry.name: entry.value for entry in found}
    return cast("Backend", import_module(names.get(name.removeprefix("array_api_compat."), names["array_api"])))
