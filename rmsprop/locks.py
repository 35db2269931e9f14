"""The lock of the state of each optimizer, which a fork waits for.

A forked process is born with the memory as it is, but without other threads: a step that one of them was taking
would never be completed there, and its lock never be released.
"""

import os
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakValueDictionary

PATIENCE = 10.0
"""Seconds that a fork waits for the steps that are under way, in all."""

further: list[Any] = []
"""Other locks that a fork waits for, without limit, when it has those of the optimizers: the users of these."""

_owners: "WeakValueDictionary[int, Any]" = WeakValueDictionary()
_forking = threading.RLock()
_held: list[Any] = []


def give_lock(owner: Any) -> None:
    """Give an object the attribute ``lock``, which the same thread can take several times."""
    owner.lock = threading.RLock()
    _owners[id(owner)] = owner


P = ParamSpec("P")
R = TypeVar("R")


def locked(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Let a method of an optimizer be run by one thread at a time."""

    @wraps(method)
    def alone(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._state.lock:
            return method(self, *args, **kwargs)

    return alone


class Unchanged:
    """The last that is pickled of an optimizer; it refuses if steps were taken meanwhile.

    While an object is being pickled, no lock can be held: nothing tells the end.
    """

    def __init__(self, state: Any) -> None:
        self._state, self._count = state, int(state.iterations.array)

    def __reduce__(self) -> Any:
        with self._state.lock:
            if int(self._state.iterations.array) != self._count:
                raise RuntimeError(
                    "another thread has taken steps of this optimizer while it was being pickled. Expected none "
                    "meanwhile, or copy.deepcopy(optimizer), opt.save or opt.get_weights, which steps wait for."
                )
        return bool, ()


class Torn:
    """Takes the place of the lock of an object that another thread was changing in the moment of a fork."""

    def __enter__(self) -> None:
        raise RuntimeError(
            "another thread was in the middle of a step of this optimizer when this process was forked, so that "
            "its state is incomplete here. Expected a fork between steps, or an optimizer made in the new process."
        )

    def __exit__(self, *exception: object) -> None:
        """Do nothing."""


def living() -> list[Any]:
    """Return all objects that have been given a lock."""
    # Unlike values(), valuerefs() is safe while other threads make optimizers.
    return [owner for reference in _owners.valuerefs() if (owner := reference()) is not None]


def _before_fork() -> None:
    _forking.acquire()
    deadline = time.monotonic() + PATIENCE
    for owner in living():
        lock = owner.lock
        if not isinstance(lock, Torn) and lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            _held.append(lock)
    for lock in further:
        lock.acquire()
        _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    _after_fork()
    for owner in living():
        if isinstance(owner.lock, Torn):
            continue
        if owner.lock.acquire(blocking=False):
            owner.lock.release()
        else:
            owner.lock = Torn()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
