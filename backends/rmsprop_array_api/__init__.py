"""Arrays of any library that follows the Array API standard, in pure calls of that standard.

No array is changed in place: each `rmsprop.Variable` gets a new one, which works for immutable arrays, too.
"""

from rmsprop.backends import Backend
from rmsprop_array_api import step

__all__ = ["ArrayAPIBackend", "backend"]


class ArrayAPIBackend(Backend):
    """The backend for any library that has none of its own."""

    per_device = True
    takes_windows = True

    memory = staticmethod(step.memory)
    check_variable = staticmethod(step.check_variable)
    overlapping = staticmethod(step.overlapping)
    zeros = staticmethod(step.zeros)
    in_range = staticmethod(step.in_range)
    squared_norms = staticmethod(step.squared_norms)
    prepare = staticmethod(step.prepare)


backend = ArrayAPIBackend()
