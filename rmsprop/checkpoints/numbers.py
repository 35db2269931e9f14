"""What an optimizer remembers beside its arrays, as a file can hold it."""

from collections.abc import Mapping
from typing import Any


def numbers_of(optimizer: Any) -> dict[str, Any]:
    """Return what an optimizer remembers, as JSON gives it back."""
    return {"has_momentum": optimizer._has_momentum}


def check_numbers(numbers: Any, settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if no optimizer with these settings can remember this."""
    if not isinstance(numbers, dict) or not isinstance(numbers.get("has_momentum"), bool):
        raise ValueError(f"its numbers are {numbers!r}.")
    if not numbers["has_momentum"] and settings.get("momentum") != 0:
        raise ValueError(f"it had no momentum, but that was {settings.get('momentum')!r}.")


def set_numbers(optimizer: Any, iterations: int, numbers: Mapping[str, Any]) -> None:
    """Let an optimizer remember the number of steps, and what has been checked."""
    optimizer._iterations.array[()] = iterations
    optimizer._has_momentum, optimizer._constant = numbers["has_momentum"], None
