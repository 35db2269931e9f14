"""Copies from one device to another, in the order of the current streams of both."""

from typing import Any

import cupy

from rmsprop_cupy.pending import hold

Array = Any


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
