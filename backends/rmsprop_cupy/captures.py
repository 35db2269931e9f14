"""Steps captured in a CUDA graph: what their replays read lies in memory that nothing else writes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import get_ident
from typing import Any

import cupy
import numpy as np

from rmsprop.formula import Hyperparameters
from rmsprop_cupy.arguments import numbers
from rmsprop_cupy.columns import Column
from rmsprop_cupy.source import SCALARS, Variant, real_type

Array = Any
COUNT = len(SCALARS)
WORDS = COUNT + (COUNT + 1) // 2
"""Words of 64 bits that the scalars take, in double and in single precision."""


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


class Captured:
    """The hyperparameters of a captured step, on the current device, where its replays read them.

    Parameters
    ----------
    hyper : Hyperparameters
        Those of the first replay, if no others are written.
    """

    def __init__(self, hyper: Hyperparameters) -> None:
        self.device = cupy.cuda.Device()
        with aside():
            self._column = Column(WORDS)
            self.refresh(hyper)

    def scalars(self, variant: Variant) -> Array:
        """Return the array of a kernel's scalars."""
        words = self._column.array
        is_double = real_type(variant.dtype) == "double"
        return words[:COUNT].view(cupy.float64) if is_double else words[COUNT:].view(cupy.float32)

    def refresh(self, hyper: Hyperparameters) -> None:
        """Bring the hyperparameters of the next replay to the device, by one asynchronous copy."""
        with self.device:
            self._column.write(_words(hyper))


def scalars(variant: Variant, hyper: Hyperparameters, captured: Captured | None) -> tuple[Any, ...]:
    """Return the arguments of a kernel that are numbers, or for a captured step the array of these."""
    return numbers(hyper) if captured is None else (captured.scalars(variant),)


def _words(hyper: Hyperparameters) -> np.ndarray[Any, Any]:
    """Return the scalars of the kernels in double and in single precision, in words of 64 bits."""
    words = np.zeros(WORDS, np.uint64)
    words[:COUNT].view(np.float64)[:] = numbers(hyper)
    with np.errstate(all="ignore"):
        words[COUNT:].view(np.float32)[:COUNT] = numbers(hyper)
    return words
