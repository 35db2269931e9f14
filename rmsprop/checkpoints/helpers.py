"""Threads that help to read and write large files."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Executor

LARGE = 1 << 22
"""Bytes of files for which threads are worth their start."""
THREADS = min(8, os.cpu_count() or 1) + 1
"""One for each core, and one that waits for the disk."""

Task = Callable[[], Any]
"""Waits for what a function returns, and returns it, or raises what it raised."""


class Helpers:
    """Threads that work beside the caller, or none, and then the caller works himself.

    Parameters
    ----------
    pool : Executor or None
    """

    def __init__(self, pool: "Executor | None") -> None:
        self._pool = pool

    def begin(self, function: Callable[..., Any], *args: Any) -> Task:
        """Begin to call a function."""
        if self._pool is not None:
            try:
                return self._pool.submit(function, *args).result
            except RuntimeError:  # at its end, the interpreter starts no threads any longer
                self._pool = None
        result = function(*args)
        return lambda: result


@contextmanager
def helpers_for(size: int) -> Iterator[Helpers]:
    """Give helpers for a file of a size in bytes."""
    with _pool() if size >= LARGE else nullcontext() as pool:
        yield Helpers(pool)


def _pool() -> "AbstractContextManager[Executor | None]":
    try:
        from concurrent.futures import ThreadPoolExecutor
    except RuntimeError:  # which can't be imported for the first time at the end of the interpreter
        return nullcontext()
    return ThreadPoolExecutor(THREADS, "rmsprop.file")
