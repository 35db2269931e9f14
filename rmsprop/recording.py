"""What tapes have in common: they follow variables, and learn when a value changes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from rmsprop import dtypes
from rmsprop.arrays import Array
from rmsprop.calls import call_of

if TYPE_CHECKING:
    from rmsprop.variable import Variable

recording: ContextVar["Recorder | None"] = ContextVar("rmsprop.recording", default=None)
"""The tape that records the reading of variables, if one does."""

tapes: "WeakValueDictionary[int, Recorder]" = WeakValueDictionary()
"""All tapes that may still be asked for gradients, recording or not."""


def tell_tapes(*sources: "Variable | Array") -> None:
    """Let all tapes know that variables or arrays get other values."""
    for reference in tapes.valuerefs():  # unlike values(), safe while other threads open tapes
        if (tape := reference()) is not None:
            for source in sources:
                tape.forget(source)


class Recorder(ABC):
    """A tape that follows variables through the reading of their values; the base of the tapes here."""

    def __init__(self, watch_accessed_variables: bool = True) -> None:
        self._watch_accessed = watch_accessed_variables
        self._watched: dict[int, tuple[Any, list[Any]]] = {}  # id -> (the watched object, its traced values)
        self._assigned: set[int] = set()

    def __repr__(self) -> str:
        return call_of(self, type(self), {"watch_accessed_variables": self._watch_accessed})

    def __enter__(self) -> Self:
        if recording.get() is not None:
            raise RuntimeError("a tape is recording already; tapes can't be nested.")
        self._watched, self._assigned = {}, set()
        self._token = recording.set(self)
        tapes[id(self)] = self
        return self

    def __exit__(self, *exception: object) -> None:
        recording.reset(self._token)

    def watch(self, source: Any) -> Any:
        """Follow a variable or an array from here on.

        Parameters
        ----------
        source : Variable or array

        Returns
        -------
        object
            The traced value. For a plain array, only what is computed from this value is followed.

        Raises
        ------
        TypeError
            If `source` can't be differentiated, because of its array library or its dtype.
        RuntimeError
            Outside of the ``with`` block.
        """
        if recording.get() is not self:
            raise RuntimeError("watch() belongs inside of the tape's `with` block.")
        known = self._watched.get(id(source))
        if known is None or id(source) in self._assigned:
            known = source, [*(known[1] if known else []), self._new_value(source)]
            self._watched[id(source)] = known
            self._assigned.discard(id(source))
        return known[1][-1]

    def read(self, variable: "Variable") -> Any:
        """Return the traced value of a variable that is watched, that of any other as a constant."""
        is_watched = id(variable) in self._watched
        accessed = self._watch_accessed and variable.trainable and self._can_trace(variable.array)
        return self.watch(variable) if is_watched or accessed else self._constant(variable.array)

    def forget(self, source: "Variable | Array") -> None:
        """Take note that a variable gets another value, of which what was computed before knows nothing."""
        if id(source) in self._watched:
            self._assigned.add(id(source))

    def traced(self, function: Any) -> Any:
        """Return the form of a NumPy function that the tape can follow."""
        return function

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

    @abstractmethod
    def _new_value(self, source: Any) -> Any:
        """Return a new traced value of a variable or an array."""


def mapped(function: Callable[[Any], Any], sources: Any) -> Any:
    """Return what a function gives for each source, in the structure of the sources."""
    if isinstance(sources, dict):
        return {key: mapped(function, source) for key, source in sources.items()}
    if isinstance(sources, list | tuple):
        return [mapped(function, source) for source in sources]
    return function(sources)
