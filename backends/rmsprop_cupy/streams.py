"""Streams of the devices: copies in their order, and all that they still use, kept alive until then."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import RLock, get_ident
from typing import Any

import cupy
import cupyx
import numpy as np

from rmsprop.arrays.libraries import Array, Host

_held: dict[Any, deque[tuple[Any, object]]] = {}
_one_at_a_time = RLock()  # what is let go may itself have something to be held


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


def is_captured(device: int) -> bool:
    """Tell whether the current stream of a device captures."""
    with cupy.cuda.Device(device):
        return bool(cupy.cuda.get_current_stream().is_capturing())


@contextmanager
def aside() -> Iterator[Any]:
    """Do something in a stream of its own, which no capture records, and wait until it is done."""
    # `with stream` would not go back to a stream that has been made the current one by `use`.
    before, stream = cupy.cuda.get_current_stream(), _side_stream(cupy.cuda.runtime.getDevice(), get_ident())
    stream.use()
    try:
        yield stream
        stream.synchronize()
    finally:
        before.use()


@cache
def _side_stream(device: int, thread: int) -> Any:
    """Return a stream of its own for each device, and each thread: what one captures must not be another's."""
    return cupy.cuda.Stream(non_blocking=True)


def copied(source: Array, target: Array) -> None:
    """Copy a contiguous array to another device, without waiting.

    The copy comes after what is under way in the current streams of both devices, and before what follows there.
    """
    _wait_for(source.device, target.device)
    with target.device:
        target.data.copy_from_device_async(source.data, source.nbytes)
        hold(source)
    _wait_for(target.device, source.device)


def on(device: Any, array: Array) -> Array:
    """Return an array itself if it is on a device, or else its copy there."""
    if array.device == device:
        return array
    with device:
        copy = cupy.empty_like(array)
    copied(array, copy)
    return copy


def _wait_for(first: Any, then: Any) -> None:
    """Let the current stream of one device wait for that of another."""
    with first:
        event = cupy.cuda.Event(disable_timing=True)
        event.record()
    with then:
        cupy.cuda.get_current_stream().wait_event(event)


def brought(numbers: Host) -> Array:
    """Return a copy of numbers on the current device, brought there in the current stream, without waiting."""
    array = cupy.empty(numbers.shape, numbers.dtype)
    _bring(numbers, array)
    return array


def _bring(numbers: Host, array: Array) -> None:
    pinned = cupyx.empty_pinned(numbers.shape, numbers.dtype)  # pyright: ignore[reportArgumentType]
    pinned[:] = numbers
    array.data.copy_from_host_async(pinned.ctypes.data, pinned.nbytes)
    hold(pinned)


class Column:
    """An array of uint64 on the current device, written by asynchronous copies and only if it has changed.

    Parameters
    ----------
    size : int
    """

    def __init__(self, size: int) -> None:
        self._last = b""
        self._sources: list[tuple[Any, Host, int]] = []
        """Pinned memory that copies come from, each with an event after the last of them, and its address."""
        self.array = cupy.empty(size, cupy.uint64)

    def write(self, numbers: Host) -> Any:
        """Bring numbers to the device, in the current stream; return the array there."""
        given = numbers.tobytes()
        if given != self._last:
            for source in self._sources:
                if source[0].done:
                    break
            else:
                source = self._another(numbers.shape)
            event, pinned, place = source
            pinned[:] = numbers
            self.array.data.copy_from_host_async(place, numbers.nbytes)
            event.record()
            self._last = given
        return self.array

    def _another(self, shape: tuple[int, ...]) -> tuple[Any, Host, int]:
        """Return more pinned memory: what there is of it is still being read."""
        pinned = cupyx.empty_pinned(shape, np.uint64)  # pyright: ignore[reportArgumentType]
        self._sources.append((cupy.cuda.Event(disable_timing=True), pinned, pinned.ctypes.data))
        return self._sources[-1]

    def __del__(self) -> None:
        if not sys.is_finalizing():
            for event, pinned, _ in self._sources:
                hold(pinned, event)
