"""Threads: the steps that use several, and how they do so safely."""

import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
from numba.core.compiler_lock import global_compiler_lock

from rmsprop import locks
from rmsprop_numba.compilation import compile_for

logger = logging.getLogger("rmsprop")

Job = tuple[Callable[..., object], tuple[Any, ...]]
"""A function and its arguments."""

PARALLEL_FROM = 262_144
"""Elements from which on threads are used.

They gain time from 50,000 elements on. But the threads of OpenMP go on spinning for a while after each use, and
so do those of BLAS: where both take turns, each waits for the other, for milliseconds.
"""

_one_at_a_time = threading.RLock()  # more than one at once would have more threads than processors
_is_forked = False


def job(serial: Any, parallel: Any, size: int, *arguments: Any) -> Job:
    """Return the call of a kernel over `size` elements, compiled; in threads if that is faster and safe."""
    if uses_threads(size):
        compile_for(parallel, arguments)
        return in_turn, (parallel, *arguments)
    compile_for(serial, arguments)
    return serial, arguments


def run(serial: Any, parallel: Any, size: int, *arguments: Any) -> None:
    """Run a kernel over `size` elements, which changes nothing of the user's."""
    if uses_threads(size):
        in_turn(parallel, *arguments)
    else:
        serial(*arguments)


def in_turn(kernel: Any, *arguments: Any) -> None:
    """Run a kernel of several threads, one at a time."""
    with _one_at_a_time:
        kernel(*arguments)


def uses_threads(size: int) -> bool:
    """Tell whether several threads are to be used for so many elements."""
    return size >= PARALLEL_FROM and _is_safe()


def _is_safe() -> bool:
    """Tell whether several threads can be used.

    Numba's "workqueue" threading layer, its fall-back, ends the process if two threads use it at once, and of the
    second one, which may be running the user's own kernels, nothing is known here.
    """
    if _is_forked:
        return False
    layer = _layer()
    return layer is not None and (layer != "workqueue" or threading.active_count() == 1)


@cache
def _layer() -> str | None:
    """Return the name of Numba's threading layer, which is chosen now; None if none can be loaded."""
    try:
        numba.get_num_threads()
        return str(numba.threading_layer())  # type: ignore[attr-defined]
    except ValueError as error:  # the user asked for one that is not installed
        logger.warning("Numba has no threads, so that steps on large arrays take one: %s", error)
        return None


def _after_fork() -> None:
    # Numba's threads do not exist in a forked child, and its "omp" layer ends a child that starts new ones.
    global _is_forked, _one_at_a_time
    _is_forked = True
    _one_at_a_time = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    locks.further.append(global_compiler_lock)
