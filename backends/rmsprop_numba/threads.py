"""When to use several threads, and how to do so safely."""

import os
import threading
from collections.abc import Callable
from typing import Any

Job = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""

PARALLEL_FROM = 262_144
"""Elements from which on threads are used.

They gain time from 50,000 elements on. But the threads of OpenMP go on spinning for a while after each use, and
so do those of BLAS: where both take turns, each waits for the other, for milliseconds.
"""

# Numba's "workqueue" threading layer, its fall-back, aborts the process if two threads use it at once.
_one_at_a_time = threading.Lock()
_is_forked = False


def run(serial: Callable[..., Any], parallel: Callable[..., Any], size: int, *arguments: Any) -> None:
    """Run a kernel over `size` elements, in several threads if that is faster and safe."""
    if size < PARALLEL_FROM or _is_forked:
        serial(*arguments)
    else:
        with _one_at_a_time:
            parallel(*arguments)


def _after_fork() -> None:
    # Numba's threads do not exist in a forked child, and its "omp" layer ends a child that starts new ones.
    global _is_forked, _one_at_a_time
    _is_forked = True
    _one_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
