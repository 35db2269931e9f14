"""The losses of a minimisation, as they become known: those of a GPU are not waited for."""

import math
from collections import deque
from typing import Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Host, is_array, is_on_host, namespace, on_device, to_numpy

BEHIND = 2
"""How many times losses can be sent before the first of them is waited for, with work enough left for a device."""

PLAIN = (float, np.float64, np.float32, int)
"""Types of losses that are numbers of the host."""


class Losses:
    """Losses in the order in which they were computed.

    Parameters
    ----------
    check_every : int
        How many losses on a device are brought to the host at a time.

    Attributes
    ----------
    known : list of float
        Those that have arrived.
    """

    def __init__(self, check_every: int) -> None:
        self.known: list[float] = []
        self._finite = 0
        self._check_every = check_every
        self._waiting: list[Array] = []
        self._sent: deque[tuple[Host, Any]] = deque()

    def add(self, loss: Any) -> Any:
        """Take note of a loss, and return it as a number, or as an array if it is on a device."""
        if type(loss) not in PLAIN:
            loss = checked(loss)
            if is_array(loss):
                self._waiting.append(loss)
                if len(self._waiting) >= self._check_every:
                    self._send()
                self._receive()
                return loss
        if self._waiting or self._sent:
            self.settle()
        number = float(loss)
        self.known.append(number)
        return number

    def first_nonfinite(self) -> int | None:
        """Return the position of the first of the known losses that is not finite, or None."""
        known = self.known
        while self._finite < len(known):
            if not math.isfinite(known[self._finite]):
                return self._finite
            self._finite += 1
        return None

    def settle(self) -> None:
        """Wait for all losses."""
        if self._waiting:
            self._send()
        while self._sent:
            self._receive(waits=True)

    def _send(self) -> None:
        first, waiting = self._waiting[0], self._waiting
        self._waiting, xp = [], namespace(first)
        with on_device(first):
            numbers = xp.stack([xp.reshape(loss, ()) for loss in waiting])
            self._sent.append(_copied_later(numbers) if hasattr(numbers, "get") else (to_numpy(numbers), None))

    def _receive(self, waits: bool = False) -> None:
        """Take over what has arrived."""
        while self._sent and (waits or self._has_arrived()):
            numbers, arrival = self._sent.popleft()
            if arrival is not None and not arrival.done:
                arrival.synchronize()
            self.known.extend(numbers.tolist())

    def _has_arrived(self) -> bool:
        """Tell whether the losses that were sent first are there, or late: a device is not left too far behind."""
        arrival = self._sent[0][1]
        return arrival is None or len(self._sent) > BEHIND or arrival.done


class Epochs:
    """The losses of each epoch.

    Parameters
    ----------
    losses : Losses

    Attributes
    ----------
    means : list of float
        The means of the epochs of which all losses are known.
    """

    def __init__(self, losses: Losses) -> None:
        self.means: list[float] = []
        self._losses = losses
        self._ends = [0]
        self._total, self._count = 0.0, 0

    def add(self, loss: Any) -> None:
        """Take note of a loss, a number or an array."""
        self._total, self._count = self._total + loss, self._count + 1

    def end(self) -> Any:
        """Return the mean since the last end, which is an array if losses are; None if there were none."""
        if not self._count:
            return None
        mean = self._total / self._count
        self._ends.append(self._ends[-1] + self._count)
        self._total, self._count = 0.0, 0
        self.update()
        return mean

    def update(self) -> None:
        """Take the means of epochs all of whose losses have become known."""
        known, means, ends = self._losses.known, self.means, self._ends
        while len(means) + 1 < len(ends) and ends[len(means) + 1] <= len(known):
            first, end = ends[len(means)], ends[len(means) + 1]
            means.append(sum(known[first:end]) / (end - first))

    def last(self) -> float:
        """Return the mean of the last epoch, as far as that has come; NaN before the first loss."""
        rest = self._losses.known[self._ends[-1] :]
        if rest:
            return sum(rest) / len(rest)
        return self.means[-1] if self.means else math.nan


def _copied_later(numbers: Array) -> tuple[Host, Any]:
    """Return memory that numbers of CuPy are being copied to, and the event of their arrival."""
    import cupy
    import cupyx

    host = cupyx.empty_pinned(numbers.shape, numbers.dtype)
    numbers.get(out=host, blocking=False)
    arrival = cupy.cuda.Event(disable_timing=True)
    arrival.record()
    return host, arrival


def checked(loss: Any) -> Any:
    """Return a loss as a number of the host, or as an array if it is on a device.

    Raises
    ------
    TypeError
        If it is no real number.
    """
    if isinstance(loss, complex) or (hasattr(loss, "dtype") and dtypes.is_complex(dtypes.name_of(loss.dtype))):
        raise TypeError("the loss is complex; take its real part or its modulus.")
    if isinstance(loss, np.ndarray | np.generic) or not is_array(loss):
        number = np.asarray(loss)
        if number.size != 1 or number.dtype.kind in "OSUMm":
            raise TypeError(f"the loss must be one number; given {loss!r}.")
        return float(number.item())
    if math.prod(loss.shape) != 1:
        raise TypeError(f"the loss must be one number; given an array of shape {tuple(loss.shape)}.")
    return float(to_numpy(loss).reshape(())) if is_on_host(loss) else loss
