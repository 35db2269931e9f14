"""What a device may still be using: kept alive until it has got there."""

import threading
from collections import deque
from typing import Any

import cupy

_held: deque[tuple[Any, object]] = deque()
_one_at_a_time = threading.Lock()


def hold(thing: object) -> None:
    """Keep something alive until all is done that the current stream has been given so far.

    CuPy hands freed memory out again at once: pinned memory to anyone, a device's to the stream that it was
    allocated in, though another may still be reading it.
    """
    if thing is None:
        return
    event = cupy.cuda.Event(disable_timing=True)
    event.record()
    with _one_at_a_time:
        _held.append((event, thing))
        while _held and _held[0][0].done:
            _held.popleft()
