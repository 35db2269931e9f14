"""Compilation of kernels: before a step changes anything, and on a stack of its own.

If Numba runs out of stack, it keeps what it has half learnt, and can't compile anything more in the process.
"""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numba
import numpy as np

FRAMES = 350
"""Calls within each other that compilation takes, a few more than 200, and some to spare."""

STACK = 16 << 20
"""Bytes of stack that it has; 2 MiB are enough."""

_compiled: set[Any] = set()
_starting = threading.Lock()
_own = threading.local()  # `own.is_compiling` is set in the threads started here


def compile_for(kernel: Any, arguments: tuple[Any, ...], kinds: tuple[Any, ...] | None = None) -> None:
    """Compile a kernel for arguments like these, unless that has been done; nothing is run.

    If all that their types depend on is known, it can be given as `kinds`, to save time.
    """
    kinds = (kernel, *([_kind(each) for each in arguments] if kinds is None else kinds))
    if kinds not in _compiled:
        kernel.compile(tuple([numba.typeof(each) for each in arguments]))  # type: ignore[no-untyped-call]
        _compiled.add(kinds)


def _kind(argument: Any) -> Any:
    """Return what the type of an argument depends on, in Numba's eyes."""
    if type(argument) is np.ndarray:
        return argument.dtype, argument.ndim, argument.flags.num & MATTERS
    return tuple(map(type, argument)) if type(argument) is tuple else type(argument)


MATTERS = sum(1 << bit for bit in (0, 1, 8, 10))
"""The flags that tell of an array if it is contiguous (in C or Fortran order), aligned and writeable."""


def with_own_stack(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call a function on a thread of its own, for what it returns or raises; from such a thread, just call it."""
    if getattr(_own, "is_compiling", False):
        return function(argument)
    if sys.getrecursionlimit() < FRAMES:
        raise RecursionError(
            f"kernels can't be compiled: the recursion limit is {sys.getrecursionlimit()}; expected at least "
            f"{FRAMES}, by sys.setrecursionlimit, until the first steps have been taken."
        )
    outcome: Future[Any] = Future()

    def work() -> None:
        _own.is_compiling = True
        try:
            outcome.set_result(function(argument))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="rmsprop compilation")
    with _starting:  # the size of stacks is that of all threads to come
        before = threading.stack_size(STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    return outcome.result()
