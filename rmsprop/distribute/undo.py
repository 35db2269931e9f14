"""Changes of a step that is not yet certain: they are put back if another rank fails meanwhile."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rmsprop.step.journal import Journal


@contextmanager
def undoing() -> Iterator[list[Journal]]:
    """Provide a list for journals; if an exception passes, put back what they have kept."""
    journals: list[Journal] = []
    try:
        yield journals
    except BaseException:
        for journal in journals:
            journal.undo()
        raise


@contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Provide a list that collects interrupts, by their numbers, instead of raising ``KeyboardInterrupt``.

    A step is not to be left half done, nor taken by the other ranks alone.
    """
    interrupts: list[int] = []
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or previous is None:
        yield interrupts
        return
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)
