"""Settings as a file can hold them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from rmsprop import schedules
from rmsprop.arrays.libraries import is_array
from rmsprop.checkpoints.errors import CheckpointError
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings.rows import ROWS, config_of
from rmsprop.settings.settings import READ, Settings
from rmsprop.variables.variable import Variable

LARGEST = 2**20
"""Bytes of the settings at most, so that a file can't make the reader build objects without end."""

GetConfig = Callable[[], dict[str, Any]]

CODE = "code"
"""Key of what stands for a setting that is code, which no file holds: a callable, or a schedule without config."""


def settings_of(settings: Settings, get_config: GetConfig) -> dict[str, Any]:
    """Return the settings of an optimizer, as JSON gives them back. No callable is called.

    Parameters
    ----------
    settings : Settings
    get_config : callable
        The optimizer's own, which a subclass may have extended.

    Raises
    ------
    TypeError, ValueError
        If a subclass's `get_config` returns what JSON can't write, or too much of it.
    """
    values = settings.values
    code = {name: _code(values[name]) for name in READ if not _is_data(values[name])}
    told = dict(config_of(values, code) if code else get_config())
    for name, row in ROWS.items():
        if row.is_code and values[name]:
            told[name] = _code(values[name])
    text = json.dumps(told, allow_nan=False)
    if len(text) > LARGEST // 2:
        raise ValueError(f"the settings of {values['name']!r} take {len(text)} bytes, more than {LARGEST // 2}.")
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
        is_same = settings_of(optimizer._settings, optimizer.get_config) == settings
    except Exception as error:  # whatever a made-up setting leads to
        raise CheckpointError(f"{source}: no optimizer can be made with its settings: {_shown(error)}") from error
    if not is_same:
        raise CheckpointError(f"{source}: its settings are not those of an optimizer: {_shown(settings)}.")
    return optimizer


def check_same(own: Mapping[str, Any], settings: Mapping[str, Any], source: str) -> None:
    """Raise ``CheckpointError`` if an optimizer's own settings are not those of the one that was saved."""
    for name in sorted({*own, *settings}):
        if own.get(name) != settings.get(name):
            raise CheckpointError(
                f"{source}: {name} is {_shown(settings.get(name))} there, but {_shown(own.get(name))} in the "
                f"optimizer {own.get('name')!r}. Restore with the same settings, and change them afterwards."
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
