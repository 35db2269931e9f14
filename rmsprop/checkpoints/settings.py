"""What an optimizer is told, as a file can hold it."""

import json
from collections.abc import Mapping
from typing import Any

from rmsprop import schedules
from rmsprop.arrays import is_array
from rmsprop.checkpoints.errors import CheckpointError
from rmsprop.schedules import LearningRateSchedule
from rmsprop.variable import Variable

LARGEST = 2**20
"""Bytes of the settings at most, so that a file can't make the reader build objects without end."""

CODE = "code"
"""Key of what stands for a setting that is code, which no file holds: a callable, or a schedule without config."""


def settings_of(optimizer: Any) -> dict[str, Any]:
    """Return the settings of an optimizer, as JSON gives them back. No callable is called.

    Raises
    ------
    TypeError, ValueError
        If a subclass's `get_config` returns what JSON can't write, or too much of it.
    """
    present = {name: optimizer.__dict__[f"_{name}"] for name in ("learning_rate", "rho", "momentum")}
    code = {name: _code(value) for name, value in present.items() if not _is_data(value)}
    settings = dict(optimizer._config(code) if code else optimizer.get_config())
    for name in ("gradient_aggregator", "gradient_transformers"):
        if getattr(optimizer, name) not in (None, ()):
            settings[name] = _code(getattr(optimizer, name))
    text = json.dumps(settings, allow_nan=False)
    if len(text) > LARGEST // 2:
        raise ValueError(f"the settings of {optimizer.name!r} take {len(text)} bytes, more than {LARGEST // 2}.")
    result: dict[str, Any] = json.loads(text)
    return result


def _is_data(setting: Any) -> bool:
    """Tell whether a setting is a number, or a schedule that numbers and names describe."""
    if not isinstance(setting, LearningRateSchedule):
        return isinstance(setting, Variable) or is_array(setting) or not callable(setting)
    try:
        json.dumps(schedules.serialize(setting), allow_nan=False)
    except (NotImplementedError, TypeError, ValueError):
        return False
    return True


def _code(setting: Any) -> dict[str, str]:
    kind = type(setting).__name__ if isinstance(setting, LearningRateSchedule) else "callable"
    return {CODE: kind}


def optimizer_from(
    cls: type, settings: Mapping[str, Any], custom_objects: Mapping[str, type] | None, source: str
) -> Any:
    """Return a new optimizer with the settings of a file.

    Raises
    ------
    CheckpointError
        If a setting was code, the class of a schedule is not known, or settings are not those of an optimizer.
    """
    for name, value in settings.items():
        if isinstance(value, dict) and CODE in value:
            raise CheckpointError(
                f"{source}: {name} was a {value[CODE]}, which is code, and no file holds code. Make the optimizer "
                f"with it as before, and call its restore(path, variables)."
            )
    try:
        optimizer = cls.from_config(settings, custom_objects)  # type: ignore[attr-defined]
        is_same = settings_of(optimizer) == settings
    except Exception as error:  # whatever a made-up setting leads to
        raise CheckpointError(f"{source}: no optimizer can be made with its settings: {_shown(error)}") from error
    if not is_same:
        raise CheckpointError(f"{source}: its settings are not those of an optimizer: {_shown(settings)}.")
    return optimizer


def check_same(optimizer: Any, settings: Mapping[str, Any], source: str) -> None:
    """Raise ``CheckpointError`` if an optimizer is told anything else than the one that was saved."""
    own = settings_of(optimizer)
    for name in sorted({*own, *settings}):
        if own.get(name) != settings.get(name):
            raise CheckpointError(
                f"{source}: {name} is {_shown(settings.get(name))} there, but {_shown(own.get(name))} in the "
                f"optimizer {optimizer.name!r}. Restore with the same settings, and change them afterwards."
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
