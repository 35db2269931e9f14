"""Adapters: RMSprop in the forms that other packages ask an optimizer for."""

from rmsprop.adapters.misc import rmsprop
from rmsprop.adapters.thinc import ThincRMSprop

__all__ = ["ThincRMSprop", "rmsprop"]


def __dir__() -> list[str]:
    return __all__
