"""Objects shown as the call that makes them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def call_of(instance: object, constructor: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """Return the call that makes an object, with the arguments that were given and are not the default.

    Examples
    --------
    >>> class Stamp:
    ...     def __init__(self, text, copies=1):
    ...         self.text, self.copies = text, copies
    ...     def __repr__(self):
    ...         return call_of(self, Stamp, {"text": self.text, "copies": self.copies})
    >>> Stamp("paid")
    Stamp(text='paid')
    """
    parameters = inspect.signature(constructor).parameters
    shown = [f"{name}={value!r}" for name, value in given.items() if not _is(value, parameters[name].default)]
    return f"{type(instance).__name__}({', '.join(shown)})"


def _is(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and value == default)
