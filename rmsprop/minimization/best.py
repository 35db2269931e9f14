"""The best point so far: a copy that is made anew whenever the loss is lower, on a device without a wait."""

import math
from typing import Any

from rmsprop.arrays.libraries import Array, copied, is_array, namespace, to_numpy, unrecorded
from rmsprop.backends import is_updated_in_place
from rmsprop.minimization.point import Point
from rmsprop.variables.variable import array_of


class Best:
    """The best point so far.

    Parameters
    ----------
    point : Point

    Attributes
    ----------
    loss : float or array
        The lowest loss, infinite at first.
    """

    def __init__(self, point: Point) -> None:
        self.loss: Any = math.inf
        self._point = point
        self._arrays: list[Array] = []

    def offer(self, loss: Any) -> None:
        """Take a copy of the point if its loss is lower than all before; one that is NaN is not."""
        if type(loss) is float and self._arrays and not (loss < self.loss or math.isnan(self.loss)):
            return
        arrays = [array_of(variable) for variable in self._point.variables]
        if self._arrays and is_array(loss):
            self._mask(loss, arrays)
            return
        self.loss = loss
        if self._arrays:
            self._arrays = [_written(kept, array) for kept, array in zip(self._arrays, arrays, strict=True)]
        else:
            self._arrays = [copied(a) if is_updated_in_place(a) else a for a in arrays]

    def _mask(self, loss: Array, arrays: list[Array]) -> None:
        """Copy where it is the device that knows whether the loss is lower."""
        xp = namespace(loss)
        with unrecorded(loss):
            is_lower = (loss < self.loss) | xp.isnan(self.loss)
            self.loss = xp.where(is_lower, loss, self.loss)
        for position, (kept, array) in enumerate(zip(self._arrays, arrays, strict=True)):
            with unrecorded(array):
                if hasattr(xp, "copyto"):
                    xp.copyto(kept, array, where=is_lower)
                else:
                    self._arrays[position] = xp.where(is_lower, array, kept)

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return bool(self._arrays)

    @property
    def fun(self) -> float:
        """The lowest loss."""
        return float(to_numpy(self.loss)) if is_array(self.loss) else float(self.loss)

    def restore(self) -> None:
        """Move the point there."""
        self._point.assign(self._arrays, "the best point")


def _written(kept: Array, array: Array) -> Array:
    """Return an array that has the values of another one, the one that is kept if that can change."""
    if not is_updated_in_place(array):
        return array
    with unrecorded(array):
        kept[...] = array
    return kept
