"""Tapes as variables know them: the one that records, and all that are told when a value changes."""

from contextvars import ContextVar
from typing import Any, Protocol
from weakref import ref


class Observer(Protocol):
    """A tape; see `rmsprop.tapes.recorder.Recorder`."""

    is_stopped: bool
    """Whether values are read as constants."""

    def read(self, variable: Any) -> Any:
        """Return the value of a variable as what is computed from it is to be followed."""

    def forget(self, source: Any) -> None:
        """Take note that a variable or an array gets another value."""


recording: ContextVar[Observer | None] = ContextVar("rmsprop.tapes.recorder", default=None)
"""The tape that records the reading of variables, if one does."""

tapes: dict[int, ref[Observer]] = {}
"""All tapes that may still be asked for gradients, recording or not; steps ask, without a call, if it is empty."""


def keep_telling(tape: Observer) -> None:
    """Tell a tape, as long as there is one, when values change."""
    number = id(tape)
    tapes[number] = ref(tape, lambda gone: tapes.pop(number) if tapes.get(number) is gone else None)


def tell_tapes(*sources: Any) -> None:
    """Let all tapes know that variables or arrays get other values."""
    for reference in list(tapes.values()):  # in one piece: other threads may open tapes
        if (tape := reference()) is not None:
            for source in sources:
                tape.forget(source)
