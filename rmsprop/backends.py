"""Backends: what each receives and offers, and which one an array gets."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, detached, namespace
from rmsprop.arrays.windows import Windows
from rmsprop.formula import NEUTRAL, Hyperparameters, Multipliers

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Gradient = Array | IndexedSlices | Windows
SPARSE = IndexedSlices, Windows
"""The types of gradients that are not arrays, but have `values`."""
Refresh = Callable[[Hyperparameters], None]
"""Brings the hyperparameters of its next replay to a captured step."""


def values_of(gradient: Gradient) -> Array:
    """Return all numbers of a gradient, as they are before any are added up."""
    return gradient.values if isinstance(gradient, SPARSE) else gradient


def with_values(gradient: Gradient, values: Array) -> Gradient:
    """Return a gradient of the same elements with other numbers."""
    return replace(gradient, values=values) if isinstance(gradient, SPARSE) else values


class Tally(Protocol):
    """What a backend keeps of the steps that a device decides on by itself."""

    def take(self) -> int:
        """Wait until all steps are decided; return how many have been left out since the last time."""
        ...

    def replayed(self) -> None:
        """Take note that captured steps are about to be replayed in the current stream."""


class Plans(dict[Any, Any]):
    """What backends keep about the lists of parameters of one optimizer, from one step to the next.

    The key tells the list. A plan has the length of its list. So that lists in ever another order do not fill the
    memory, the oldest plans are forgotten.

    Attributes
    ----------
    tally : Tally or None
        What a backend knows of the steps that its devices have left out.
    """

    tally: Tally | None = None

    def keep(self, key: Any, plan: Any) -> None:
        """Keep a plan, instead of any other for this key."""
        self.pop(key, None)
        self[key] = plan
        lengths = list(map(len, self.values()))
        while len(self) > 1 and sum(lengths) > max(PLANNED, 4 * max(lengths)):
            del self[next(iter(self))], lengths[0]


PLANNED = 4_096
"""Length of all lists together, up to which their plans are kept."""


class HasArray(Protocol):
    """What holds an array, a variable or a slot, as a backend receives it; see `rmsprop.Variable`."""

    array: Array
    """A backend that does not update in place puts another one here."""
    constraint: Callable[[Array], Array] | None
    trainable: bool


class Updatable(Protocol):
    """A variable and its slots, as a backend receives them; see `rmsprop.state.parameters.Parameter`.

    In messages, ``str`` calls the variable by its name.
    """

    plan: Any
    """What the backend keeps about this parameter from one step to the next, None at first.

    It is dropped when it is to be found out who else holds the variable.
    """
    notes: Any
    """What the backend keeps in any case, None at first; it must not keep the variable alive."""
    plans: Plans
    """What the backend keeps about lists of parameters."""
    multipliers: Multipliers
    """What the numbers of the step are multiplied by; if they change, all plans are dropped."""

    @property
    def variable(self) -> HasArray:
        """The variable."""
        ...

    @property
    def slots(self) -> Mapping[str, HasArray]:
        """The slots by their names, see `rmsprop.formula.SLOTS`."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the variable and its slots."""
        ...

    @property
    def key(self) -> Any:
        """The object that the caller passes for this parameter: the array itself if it `is_raw`."""
        ...

    @property
    def is_raw(self) -> bool:
        """Whether the caller uses the array itself, without a `rmsprop.Variable`."""
        ...


def multipliers_of(parameters: Sequence[Updatable]) -> list[Multipliers] | None:
    """Return the multipliers of parameters, or None if all are neutral."""
    multipliers = [parameter.multipliers for parameter in parameters]
    return None if all([each == NEUTRAL for each in multipliers]) else multipliers


class Factors(Protocol):
    """What a backend that `makes_factors` gives its own `prepare`."""

    @property
    def magnitudes(self) -> Array:
        """Numbers of shape (n,), each finite if a gradient and the norms that it is clipped by are."""
        ...

    def of_shares(self, parameters: Sequence[Updatable], hyper: Hyperparameters) -> "Factors":
        """Return the same factors for parameters that are shares of those that these were made for, in order."""
        ...


class Replay(Protocol):
    """What takes a step again, with other gradients, and without all of the checks in Python.

    The `prepare` of a backend may keep one in the ``plans`` of its parameters, for the identity of the first one's
    ``key``.
    """

    def accept(self, given: list[Any], slots: tuple[str, ...], hyper: Hyperparameters | None) -> Any:
        """Return the gradients in a form for `step` if the step can be taken, else None; nothing is changed.

        The hyperparameters are None if it is not yet known what they will be. Then it is asked again with them.

        It can if the list consists of tuples of dense gradients and the variables as before, all of which would
        pass the checks unchanged, the same slots are used, all variables are trainable, and none has a constraint.
        """

    def step(self, gradients: Any, hyper: Hyperparameters) -> int | None:
        """Take the step, with gradients that have just been accepted and are still alive; clip them as asked.

        Unless ``hyper.nonfinite`` is "propagate", first look for gradients that are not finite: return the
        position of the first one, and change nothing. A backend that `makes_factors` counts a step that is to be
        skipped in the ``tally`` of the plans instead.
        """


class Backend(ABC):
    """What updates the arrays of one library, or of many; its functions know no state.

    Everything it receives has been validated by the shared code: gradients have the shape and dtype of their
    variable, and a variable occurs once. Nothing here may fail for reasons that a check could have found.

    The entry point of a package names an instance of a subclass. Its attributes declare what it is able to do.
    What has a default here may be left out. After a step, nothing may keep variables alive but ``plan`` and
    ``plans``.
    """

    in_place: bool = False
    """Whether an array keeps its memory when its values change, by a step or by ``array[...] = values``.

    If so, its memory is copied wherever a step may have to be undone, and a `Variable` keeps its array. If not,
    arrays never change: the step gives other ones to variables and slots.
    """
    per_device: bool = False
    """Whether all arrays of a call have to be of one library and on one device."""
    makes_factors: bool = False
    """Whether `factors` is there, and leaves out steps itself.

    If it `has_compact_slots`, too, it must count these, and subtract those that it was not yet asked for from
    ``hyper.step``.
    """
    reports_misses: bool = False
    """Whether the update leaves out rows or windows out of range, and `report_misses` tells later.

    If so, `in_range` is asked only if the user wants to wait for the answer.
    """
    has_compact_slots: bool = False
    """Whether `compact_slot` is there."""
    adapts_gradients: bool = False
    """Whether `adapted` is there."""
    takes_windows: bool = False
    """Whether gradients may be `rmsprop.Windows`.

    Their starts are a contiguous array of NumPy, of int64 and shape (n, ndim), of windows that lie inside of the
    variable; or, if it `reports_misses`, the array of int64 of its own library that the user gave, unchecked.
    """

    def of(self, array: Array) -> "Backend":
        """Return the backend for an array of the library whose entry point names this one, as by its device."""
        return self

    @staticmethod
    @abstractmethod
    def memory(array: Array) -> Hashable:
        """Identify the memory that a plain array stands for, so that two views of it are recognised.

        Raises ``TypeError`` if the library's arrays can be optimised in a `Variable` only.
        """

    @staticmethod
    @abstractmethod
    def check_variable(array: Array) -> None:
        """Raise ``TypeError`` or ``ValueError``, without naming it, if an array can't be updated."""

    @staticmethod
    @abstractmethod
    def overlapping(arrays: Sequence[Array]) -> tuple[int, int] | None:
        """Return the positions of two arrays that share memory, if any do."""

    @staticmethod
    @abstractmethod
    def zeros(like: Array, dtype: str) -> Array:
        """Return zeros of the shape, device and, as far as it matters, layout of `like`."""

    @staticmethod
    @abstractmethod
    def in_range(indices: Array, rows: int) -> bool:
        """Tell whether ``0 <= indices < rows`` for all of them."""

    @staticmethod
    @abstractmethod
    def squared_norms(gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
        """Return the sum of ``|scale * g|**2`` of each gradient, after clipping by value; shape (n,).

        The scale is another power of two where a square would be too large or too small, see `rmsprop.norms`.
        """

    @staticmethod
    @abstractmethod
    def prepare(
        parameters: Sequence[Updatable],
        gradients: Sequence[Gradient],
        factors: Any,
        hyper: Hyperparameters,
    ) -> Callable[[], Refresh | None]:
        """Do all of a step that may fail; return what updates all variables and slots.

        Each gradient is clipped by value, then multiplied by its factor, if there is one, which clips by norm and
        divides by ``hyper.loss_scale``. `factors` are None, or what the function `factors` returned, or an array
        of shape (n, 2): a gradient is multiplied by the first number, then by the second one, see
        `rmsprop.norms`.
        """

    def adapted(self, gradient: Any) -> Any:
        """Return a gradient, as the user gave it, in a form that shared code knows: `IndexedSlices`, if sparse.

        Raises ``TypeError``, without naming the variable, for what is none. Asked only of a backend that
        `adapts_gradients`, before all other checks.
        """
        return gradient

    @staticmethod
    def factors(parameters: Sequence[Updatable], gradients: Sequence[Gradient], hyper: Hyperparameters) -> Factors:
        """Do in fewer calls what `squared_norms` and `rmsprop.norms` do together.

        If ``hyper.nonfinite`` is "skip", this and `prepare` leave the step out if a gradient is not finite, and
        count that in the ``tally`` of the plans. Asked only of a backend that `makes_factors`.
        """
        raise NotImplementedError("a backend with makes_factors needs the function factors")

    @staticmethod
    def first_nonfinite(gradients: Sequence[Gradient]) -> int | None:
        """Return the position of the first gradient with a NaN or an infinity, or None."""
        values = [detached(values_of(g)) for g in gradients]
        xp = namespace(values[0])
        are_finite = xp.stack([xp.all(xp.isfinite(v)) for v in values])
        return None if bool(xp.all(are_finite)) else int(xp.argmin(xp.astype(are_finite, xp.int32)))

    @staticmethod  # noqa: B027 (most have nothing to report)
    def report_misses(parameter: Updatable) -> None:
        """Raise ``ValueError`` if rows or windows out of range were found in earlier gradients of a variable."""

    @staticmethod
    def check_step(
        parameters: Sequence[Updatable], gradients: Sequence[Gradient], positions: Sequence[int]
    ) -> bool:
        """Raise errors that only the backend can find, by the variables' positions in the step.

        Tell whether the update will be captured in a graph, to be replayed later. Then what `prepare` returns must
        itself return a function, which is called with the hyperparameters of each replay.
        """
        return False

    @staticmethod
    def compact_slot(array: Array, name: str, dtype: str, state_dtype: str, label: str) -> Any:
        """Return the slot `name` of a variable as a `Variable` of zeros of `dtype` that is kept in a smaller one.

        Its `array` is a copy in full. `prepare` will know such slots by ``hyper.state_dtype``. Its attribute
        ``parts`` are the arrays that it is kept in, by name, as in files: the first one has an element for each
        real of the slot. They can be replaced by others of the same kind. See `rmsprop.variables.compact`. Asked
        only of a backend that `has_compact_slots`.
        """
        raise NotImplementedError("a backend with has_compact_slots needs the function compact_slot")

    @staticmethod
    def owner(array: Array, is_its_own: bool) -> Array | None:
        """Return the array that all have to hold who can reach the memory of a plain array.

        It is the array itself, or what it is a view of; None if others may share the memory, unless `is_its_own`
        says that they do not. Where there is one, it is noticed if arrays are replaced; see
        `rmsprop.state.identity`.
        """
        return None

    @staticmethod
    def place(array: Array, owner: Array) -> Any:
        """Tell where a view lies in its owner, without holding either. Asked only where there is an `owner`."""
        raise NotImplementedError("a backend with the function owner needs the function place")

    @staticmethod
    def view(owner: Array, place: Any) -> Array:
        """Return the view that lies at a place in its owner, or in a copy of it."""
        raise NotImplementedError("a backend with the function owner needs the function view")

    @staticmethod
    def address(array: Array) -> int | None:
        """Tell where an array lies, if that may change, as by ``resize``: then it is refused."""
        return None


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
    return _load("numpy" if isinstance(array, np.ndarray) else namespace(array).__name__).of(array)


def is_updated_in_place(array: Array) -> bool:
    """Tell whether an array keeps its memory when its values change, or is replaced."""
    return isinstance(array, np.ndarray) or backend_of(array).in_place


GROUP = "rmsprop.backends"
OWN = {
    "numpy": "rmsprop_numba:backend",
    "cupy": "rmsprop_cupy:backend",
    "torch": "rmsprop_shared.tensors_on_host:backend",
    "array_api": "rmsprop_array_api:backend",
}
"""The entry points of this project. No other package takes their place, and they need no metadata, as in a zip."""


def installed() -> "dict[str, EntryPoint]":
    """Return the entry points of all backends, by the names of their libraries."""
    from importlib.metadata import EntryPoint, entry_points  # takes as long as all of `import rmsprop`

    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    return others | {name: EntryPoint(name, value, GROUP) for name, value in OWN.items()}


@cache
def _load(name: str) -> Backend:
    entries = installed()
    entry = entries.get(name.removeprefix("array_api_compat."), entries["array_api"])
    backend = entry.load()
    if not isinstance(backend, Backend):
        raise TypeError(
            f"The entry point {entry.name} = {entry.value!r} of {GROUP} names a {type(backend).__name__}; "
            f"expected an instance of a subclass of rmsprop.backends.Backend, as in 'package:backend'."
        )
    return backend
