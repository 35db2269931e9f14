"""What an optimizer remembers beside its arrays, as a file can hold it."""

from collections.abc import Mapping
from typing import Any

from rmsprop.loss_scale import LossScale


def numbers_of(optimizer: Any) -> dict[str, Any]:
    """Return what an optimizer remembers, as JSON gives it back."""
    numbers = {"has_momentum": optimizer._has_momentum, "skipped": optimizer.skipped}
    scale = optimizer.loss_scale
    return numbers if scale is None else {**numbers, "loss_scale": [scale.scale, scale.dynamic_counter]}


def check_numbers(numbers: Any, settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if no optimizer with these settings can remember this."""
    if not isinstance(numbers, dict) or not isinstance(numbers.get("has_momentum"), bool):
        raise ValueError(f"its numbers are {numbers!r}.")
    if not numbers["has_momentum"] and settings.get("momentum") != 0:
        raise ValueError(f"it had no momentum, but that was {settings.get('momentum')!r}.")
    skipped, scale = numbers.get("skipped"), numbers.get("loss_scale")
    if type(skipped) is not int or not 0 <= skipped < 2**63:
        raise ValueError(f"skipped must be a whole number that is not negative; given {skipped!r}.")
    if (scale is None) != (settings.get("loss_scale") is None):
        raise ValueError(f"its loss scale is {scale!r}, and its settings {settings.get('loss_scale')!r}.")
    if scale is not None:
        LossScale().set_weights(scale)  # which checks it


def set_numbers(optimizer: Any, iterations: int, numbers: Mapping[str, Any]) -> None:
    """Let an optimizer remember the number of steps, and what has been checked."""
    optimizer._iterations.array[()] = iterations
    optimizer._has_momentum, optimizer._constant = numbers["has_momentum"], None
    optimizer._iterations.skipped = numbers["skipped"]
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.set_weights(numbers["loss_scale"])
