"""The base of the tapes: they follow variables, and learn when a value changes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, DType, namespace, on_device
from rmsprop.calls import call_of
from rmsprop.variables.nested import mapped
from rmsprop.variables.observers import keep_telling, recording
from rmsprop.variables.variable import Variable


class Recorder(ABC):
    """A tape that follows variables through the reading of their values; the base of the tapes here.

    Attributes
    ----------
    is_stopped : bool
        Whether values are read as constants, in `stop_recording`.
    """

    is_stopped = False

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent  # for `repr` alone: gradients can be asked for any number of times
        self._watch_accessed = watch_accessed_variables
        self._watched: dict[int, tuple[Any, list[Any]]] = {}  # id -> (the watched object, its traced values)
        self._assigned: set[int] = set()

    def __repr__(self) -> str:
        given = {"persistent": self._persistent, "watch_accessed_variables": self._watch_accessed}
        return call_of(self, type(self), given)

    def __enter__(self) -> Self:
        if recording.get() is not None:
            raise RuntimeError("a tape is recording already; tapes can't be nested.")
        self._watched, self._assigned, self.is_stopped = {}, set(), False
        self._token = recording.set(self)
        keep_telling(self)
        return self

    def __exit__(self, *exception: object) -> None:
        recording.reset(self._token)

    def watch(self, source: Any) -> Any:
        """Follow variables or arrays from here on.

        Parameters
        ----------
        source : Variable or array, or nested lists, tuples and dicts of these

        Returns
        -------
        object
            The traced value, in the structure of `source`. For a plain array, only what is computed from this
            value is followed.

        Raises
        ------
        TypeError
            If `source` can't be differentiated, because of its array library or its dtype.
        RuntimeError
            Outside of the ``with`` block.
        """
        if recording.get() is not self:
            raise RuntimeError("watch() belongs inside of the tape's `with` block.")
        if isinstance(source, list | tuple | dict):
            return mapped(self.watch, source)
        known = self._watched.get(id(source))
        if known is None or id(source) in self._assigned:
            known = source, [*(known[1] if known else []), self._new_value(source)]
            self._watched[id(source)] = known
            self._assigned.discard(id(source))
        return known[1][-1]

    def watched_variables(self) -> tuple[Variable, ...]:
        """Return the variables that have been watched or used, in this order."""
        return tuple(source for source, _ in self._watched.values() if isinstance(source, Variable))

    @contextmanager
    def stop_recording(self) -> Iterator[None]:
        """Return a context in which nothing is recorded: variables and traced values are constants there.

        Raises
        ------
        RuntimeError
            Outside of the ``with`` block.
        """
        if recording.get() is not self:
            raise RuntimeError("stop_recording() belongs inside of the tape's `with` block.")
        before, self.is_stopped = self.is_stopped, True
        try:
            with self._paused():
                yield
        finally:
            self.is_stopped = before

    def read(self, variable: Variable) -> Any:
        """Return the traced value of a variable that is watched, that of any other as a constant."""
        if self.is_stopped:
            return self._constant(variable.array)
        is_watched = id(variable) in self._watched
        accessed = self._watch_accessed and variable.trainable and self._can_trace(variable.array)
        return self.watch(variable) if is_watched or accessed else self._constant(variable.array)

    def forget(self, source: Variable | Array) -> None:
        """Take note that a variable gets another value, of which what was computed before knows nothing."""
        if id(source) in self._watched:
            self._assigned.add(id(source))

    def _latest(self, target: Any) -> Any:
        """Return the traced value that a watched variable stands for as a target."""
        return self._watched[id(target)][1][-1] if id(target) in self._watched else target

    def _values(self, source: Any) -> list[Any]:
        """Return the traced values that a source has had: one more for each time it was assigned to."""
        return self._watched[id(source)][1] if id(source) in self._watched else []

    def _can_trace(self, array: Array) -> bool:
        """Tell whether the values of an array can be followed."""
        return dtypes.name_of(array.dtype) in dtypes.COMPUTE

    def _constant(self, array: Array) -> Any:
        """Return an array in a form that goes together with traced values."""
        return array

    def _paused(self) -> AbstractContextManager[Any]:
        """Return a context in which what is computed from traced values is not recorded."""
        return nullcontext()

    @abstractmethod
    def _new_value(self, source: Any) -> Any:
        """Return a new traced value of a variable or an array."""


def refuse_complex(dtype: DType) -> None:
    """Raise the ``TypeError`` for a complex target, which has no direction of descent."""
    raise TypeError(
        f"the loss must be real; given a complex one, of {dtype}. Take its .real, or abs() of it. The sum of "
        f"z * conj(z) is complex, too: take sum(abs(z) ** 2), or its .real."
    )


def wants_zeros(unconnected_gradients: Any) -> bool:
    """Tell whether zeros are asked for where a target does not depend on a source.

    Raises
    ------
    ValueError
        If the setting is neither "none" nor "zero", nor a member of an enumeration with these values.
    """
    wanted = getattr(unconnected_gradients, "value", unconnected_gradients)
    if wanted not in ("none", "zero"):
        raise ValueError(f'unconnected_gradients must be "none" or "zero"; given {unconnected_gradients!r}.')
    return bool(wanted == "zero")


def zeros_of(source: Variable | Array) -> Array:
    """Return the gradient by a source that a target does not depend on."""
    array = getattr(source, "array", source)
    with on_device(array):
        return namespace(array).zeros_like(array)
