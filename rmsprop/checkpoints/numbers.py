"""Numbers that an optimizer remembers beside its arrays, as a file can hold them."""

from collections.abc import Mapping
from typing import Any

from rmsprop.settings.checks import checked_patterns
from rmsprop.settings.settings import Settings
from rmsprop.state.loss_scale import LossScale


def numbers_of(settings: Settings) -> dict[str, Any]:
    """Return what an optimizer remembers, as JSON gives it back."""
    iterations = settings.state.iterations
    iterations.settle()
    numbers: dict[str, Any] = {"has_momentum": settings.has_momentum, "skipped": iterations.skipped}
    scale = settings.values["loss_scale"]
    if scale is not None:
        numbers["loss_scale"] = [scale.scale, scale.dynamic_counter]
    if accumulated := int(settings.state.accumulated.array):
        numbers["accumulated"] = accumulated
    if settings.state.undecayed:
        numbers["undecayed"] = settings.state.undecayed
    return numbers


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
    accumulated = numbers.get("accumulated", 0)
    if type(accumulated) is not int or not 0 <= accumulated < 2**63:
        raise ValueError(f"accumulated must be a whole number that is not negative; given {accumulated!r}.")
    checked_patterns(numbers.get("undecayed"))


def set_numbers(settings: Settings, count: int, numbers: Mapping[str, Any]) -> None:
    """Let an optimizer remember the number of steps, and what has been checked."""
    iterations, scale = settings.state.iterations, settings.values["loss_scale"]
    iterations.array[()] = count
    settings.has_momentum, settings.constant = numbers["has_momentum"], None
    iterations.skipped = numbers["skipped"]
    settings.state.accumulated.assign(numbers.get("accumulated", 0))
    settings.state.undecayed = list(numbers.get("undecayed", ()))
    if scale is not None:
        scale.set_weights(numbers["loss_scale"])
