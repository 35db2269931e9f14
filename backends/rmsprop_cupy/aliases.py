"""Which gradients lie in the memory of variables or slots."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmsprop.backends import Updatable
from rmsprop_cupy.variables import bounds

Array = Any


class Occupied:
    """The memory of variables and all of their slots.

    It keeps this from being used for anything else, but not the arrays alive, so that they tell who holds them.

    Attributes
    ----------
    memory : list of cupy.cuda.MemoryPointer
    """

    def __init__(self, parameters: Sequence[Updatable]) -> None:
        arrays = [v.array for p in parameters for v in (p.variable, *p.slots.values())]
        self.memory = [array.data for array in arrays]
        pairs = np.array(sorted(bounds(a) for a in arrays), np.uint64).reshape(-1, 2)
        self._starts, self._stops = pairs[:, 0], np.maximum.accumulate(pairs[:, 1])

    def overlap(self, arrays: Sequence[Array]) -> Sequence[bool]:
        """Tell for each array whether its memory may be a part of this."""
        pairs = np.array([bounds(a) for a in arrays], np.uint64).reshape(-1, 2)
        before = np.searchsorted(self._starts, pairs[:, 1])  # how many begin before each array ends
        ends = np.concatenate([np.zeros(1, np.uint64), self._stops])
        return (ends[before] > pairs[:, 0]).tolist()  # type: ignore[no-any-return]
