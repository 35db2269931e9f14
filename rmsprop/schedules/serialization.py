"""Schedules as dicts that `json` can write, in the layouts of Keras."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from rmsprop.schedules.base import BUILT_IN, LearningRateSchedule


def serialize(schedule: LearningRateSchedule, use_legacy_format: bool = False) -> dict[str, Any]:
    """Return `schedule` as a dict of Keras's layout that `json` can write.

    Parameters
    ----------
    schedule : LearningRateSchedule
        Built-in or custom; a custom one needs ``get_config``.
    use_legacy_format : bool, default False
        Write Keras's older layout: ``class_name`` and ``config`` only.

    Returns
    -------
    dict
        ``module``, ``class_name``, ``config`` and ``registered_name``. A custom schedule has no module and
        is registered under the name of its class.

    Raises
    ------
    TypeError
        If `schedule` is no `LearningRateSchedule`.

    Examples
    --------
    >>> from rmsprop.schedules import InverseTimeDecay
    >>> serialize(InverseTimeDecay(0.1, 10, 0.5), use_legacy_format=True)["class_name"]
    'InverseTimeDecay'
    """
    if not isinstance(schedule, LearningRateSchedule):
        raise TypeError(f"schedule must be a LearningRateSchedule, got {schedule!r}")
    name = type(schedule).__name__
    saved = {"class_name": name, "config": _plain(schedule.get_config(), use_legacy_format)}
    if use_legacy_format:
        return saved
    if BUILT_IN.get(name) is type(schedule):
        return {"module": "keras.optimizers.schedules", **saved, "registered_name": None}
    return {"module": None, **saved, "registered_name": name}


def deserialize(
    config: Mapping[str, Any],
    custom_objects: Mapping[str, type[LearningRateSchedule]] | None = None,
    use_legacy_format: bool = False,
) -> LearningRateSchedule:
    """Return the schedule that `serialize`, here or in Keras, wrote.

    Parameters
    ----------
    config : mapping
        Of either layout; it is not changed.
    custom_objects : mapping, optional
        Custom classes by name; they come before built-in ones.
    use_legacy_format : bool, default False
        Accepted as in Keras; both layouts can be read whatever it says.

    Returns
    -------
    LearningRateSchedule
        A new schedule.

    Raises
    ------
    TypeError
        If `config` is no mapping, or its class is neither built in nor in `custom_objects`.
    ValueError
        If ``class_name`` or ``config`` is missing.

    Examples
    --------
    >>> from rmsprop.schedules import InverseTimeDecay
    >>> schedule = InverseTimeDecay(0.1, 10, 0.5)
    >>> deserialize(serialize(schedule)) == schedule
    True
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping that serialize returned, got {config!r}")
    for key in ("class_name", "config"):
        if key not in config:
            raise ValueError(f"config must have the key {key!r}, got {dict(config)!r}")
    if not isinstance(config["config"], Mapping):
        raise TypeError(f"the config of a schedule must be a mapping, got {config['config']!r}")
    if not isinstance(custom_objects, Mapping | None):
        raise TypeError(f"custom_objects must map names to classes, got {custom_objects!r}")
    cls = _find_class(config, custom_objects or {})
    return cls.from_config(deepcopy(unwrapped(config["config"])))  # a custom from_config may pop from its argument


def _find_class(
    config: Mapping[str, Any], custom_objects: Mapping[str, type[LearningRateSchedule]]
) -> type[LearningRateSchedule]:
    name = config["class_name"]
    for key in (config.get("registered_name"), name):
        if isinstance(key, str) and key in custom_objects:
            if not hasattr(custom_objects[key], "from_config"):
                raise TypeError(
                    f"custom_objects[{key!r}] must be a class of schedules, got {custom_objects[key]!r}"
                )
            return custom_objects[key]
    # A custom class may share its name with a built-in one, but not its module, which Keras leaves out or empty.
    module = config.get("module", "keras")
    if isinstance(name, str) and name in BUILT_IN and str(module).partition(".")[0] in ("keras", "tf_keras"):
        return BUILT_IN[name]
    raise TypeError(f"unknown schedule class {name!r}: pass custom_objects={{{name!r}: the class}}")


def _plain(value: Any, use_legacy_format: bool = False) -> Any:
    """Return `value` in the types that `json` can write: no array scalars, tuples or schedules."""
    if isinstance(value, LearningRateSchedule):
        return serialize(value, use_legacy_format)
    if isinstance(value, Mapping):
        return {key: _plain(item, use_legacy_format) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, use_legacy_format) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def unwrapped(value: Any) -> Any:
    """Return a value without the dicts that Keras 3 writes around arrays, NumPy's numbers and tuples."""
    if isinstance(value, list | tuple):
        return [unwrapped(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.get("class_name") in ("__tensor__", "__numpy__"):
        return value["config"]["value"]
    if value.get("class_name") == "__tuple__":
        return unwrapped(value["items"])
    return {key: unwrapped(item) for key, item in value.items()}
