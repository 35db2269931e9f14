"""What a device may still be using: kept alive until it has got there."""

from collections import deque
from typing import Any

import cupy

_held: deque[tuple[Any, object]] = deque()


def hold(thing: object) -> None:
    """Keep something alive until all is done that the current stream has been given so far.

    CuPy hands freed memory out again at once: pinned memory to anyone, a device's to the stream that it was
    allocated in, though another may still be reading it.
    """
    while _held and _held[0][0].done:
        _held.popleft()
    event = cupy.cuda.Event(disable_timing=True)
    event.record()
    _held.append((event, thing))
