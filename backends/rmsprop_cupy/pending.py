"""What a device may still be using: kept alive until it has got there."""

import threading
from collections import deque
from typing import Any

import cupy

_held: dict[Any, deque[tuple[Any, object]]] = {}
_one_at_a_time = threading.RLock()  # what is let go may itself have something to be held


def hold(thing: object, event: Any = None) -> None:
    """Keep something alive until an event, by default until the current stream has done all it was given so far.

    CuPy hands freed memory out again at once: pinned memory to anyone, a device's to the stream that it was
    allocated in, though another may still be reading it.
    """
    if thing is None:
        return
    queue: object = event
    if event is None:
        stream, event = cupy.cuda.get_current_stream(), cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        queue = cupy.cuda.runtime.getDevice(), stream.ptr
    with _one_at_a_time:
        _held.setdefault(queue, deque()).append((event, thing))
        for key, things in list(_held.items()):
            while things and things[0][0].done:
                things.popleft()
            if not things:
                _held.pop(key, None)
