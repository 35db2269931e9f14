"""Steps captured in a CUDA graph: what their replays read lies in memory that nothing else writes to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cupy
import numpy as np

from rmsprop.backends import Hyperparameters
from rmsprop.parameters import Parameter
from rmsprop_cupy.arguments import numbers
from rmsprop_cupy.columns import Column
from rmsprop_cupy.source import Variant, real_type

Array = Any

FIXED = ("centered", "clipvalue", "clipnorm", "global_clipnorm", "complex_as_real")
"""Hyperparameters that all replays of a captured step share."""


def is_capturing(parameters: Sequence[Parameter]) -> bool:
    """Tell whether a step would be captured in a graph instead of being taken.

    Raises
    ------
    RuntimeError
        If that is so for some variables only, since they are on several devices.
    """
    devices = sorted({parameter.variable.array.data.device_id for parameter in parameters})
    answers = [is_captured(device) for device in devices]
    if any(answers) and len(devices) > 1:
        raise RuntimeError(f"a captured step needs all variables on one device; given devices {devices}.")
    return any(answers)


def is_captured(device: int) -> bool:
    """Tell whether the current stream of a device captures."""
    with cupy.cuda.Device(device):
        return bool(cupy.cuda.get_current_stream().is_capturing())


@contextmanager
def aside() -> Iterator[None]:
    """Do something in a stream of its own, which no capture records, and wait until it is done."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        yield
    stream.synchronize()


class Captured:
    """The hyperparameters of captured steps, where their replays read them.

    Attributes
    ----------
    kept : list
        What the replays read besides, and nobody else holds.
    """

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self._device = cupy.cuda.Device()
        self._column = Column(11)  # seven float64, seven float32
        self._fixed: dict[str, Any] = {}

    def scalars(self, variant: Variant, hyper: Hyperparameters) -> Array:
        """Return the array of a kernel's scalars, which at first are those of `hyper`."""
        self._fixed = _fixed(hyper)
        with aside():
            words = self._column.write(_words(hyper))
        is_double = real_type(variant.dtype) == "double"
        return words[:7].view(cupy.float64) if is_double else words[7:].view(cupy.float32)

    def __call__(self, hyper: Hyperparameters) -> None:
        """Bring the hyperparameters of the next replay to the device; ``RuntimeError`` if one can't change."""
        for name, value in _fixed(hyper).items():
            if value != self._fixed[name]:
                raise RuntimeError(
                    f"{name} can't change between replays of a captured step, which has {self._fixed[name]!r}; "
                    f"given {value!r}. Capture the step again."
                )
        with self._device:
            self._column.write(_words(hyper))


def scalars(variant: Variant, hyper: Hyperparameters, captured: Captured | None) -> tuple[Any, ...]:
    """Return the arguments of a kernel that are numbers, or for a captured step the array of these."""
    return numbers(hyper) if captured is None else (captured.scalars(variant, hyper),)


def _fixed(hyper: Hyperparameters) -> dict[str, Any]:
    has_momentum = hyper.momentum is not None
    return {"having momentum": has_momentum, **{name: getattr(hyper, name) for name in FIXED}}


def _words(hyper: Hyperparameters) -> np.ndarray[Any, Any]:
    """Return the scalars of the kernels in double and in single precision, in words of 64 bits."""
    words = np.zeros(11, np.uint64)
    words[:7].view(np.float64)[:] = numbers(hyper)
    words[7:].view(np.float32)[:7] = numbers(hyper)
    return words
