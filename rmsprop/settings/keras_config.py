"""Configurations of Keras 3 and of tf_keras's present optimizers, in the terms of this library."""

from collections.abc import Collection, Mapping
from typing import Any

from rmsprop.schedules.serialization import unwrapped
from rmsprop.settings.checks import DEFAULT_EPSILON, Epsilon, number, where_added
from rmsprop.state.loss_scale import LossScale

PRESENT = ("loss_scale_factor", "gradient_accumulation_steps", "jit_compile", "is_legacy_optimizer")
"""Keys that only present configurations have."""

SHARED = ("weight_decay", "use_ema")
"""Keys that present configurations have as well as those of this library, which have ``decay``, too."""

LIMITS = ("clipnorm", "global_clipnorm", "clipvalue")
"""In the order in which Keras looks at them: the first that is above 0 clips, and no other."""


def translated(config: Mapping[str, Any], own: Collection[str], base: Collection[str]) -> dict[str, Any]:
    """Return the settings of a configuration, those of the legacy optimizer and of this library as they are.

    Parameters
    ----------
    config : mapping
    own : collection of str
        Arguments of the optimizer's own constructor, which mean what that says.
    base : collection of str
        Those of `rmsprop.RMSprop`, of which some have the names of Keras.

    Raises
    ------
    ValueError
        If a present configuration asks for what is not done here.
    """
    settings = {key: unwrapped(value) for key, value in config.items()}
    present = {key: settings.pop(key) for key in PRESENT if key in settings and key not in own}
    is_shared = "decay" not in settings and any(key in settings and key in base for key in SHARED)
    if present.get("is_legacy_optimizer", not (present or is_shared)):
        return settings
    scale = present.get("loss_scale_factor")
    if scale is not None and scale != 1:
        settings["loss_scale"] = LossScale(number("loss_scale_factor", scale, 1.0), dynamic=False)
    settings["accumulate"] = present.get("gradient_accumulation_steps") or 1
    if settings.get("use_ema") and settings["accumulate"] > 1:
        raise ValueError(
            "gradient_accumulation_steps of a configuration of Keras with use_ema: Keras averages in each call, "
            "this optimizer in each step. Leave one key out, and set use_ema or accumulate yourself."
        )
    return {**settings, **_without_effect(settings), **_epsilon(settings), "decoupled": True}


def _epsilon(settings: Mapping[str, Any]) -> Epsilon:
    return where_added(number("epsilon", settings.get("epsilon", DEFAULT_EPSILON), 0.0), in_sqrt=True)


def _without_effect(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return neutral values for settings that have no effect in Keras."""
    clipping = [limit for limit in LIMITS if (settings.get(limit) or 0) > 0]
    neutral: dict[str, Any] = {limit: None for limit in LIMITS if limit in settings and limit not in clipping[:1]}
    if not settings.get("weight_decay"):
        neutral["weight_decay"] = 0.0
    if not settings.get("use_ema"):
        neutral |= {"use_ema": False, "ema_momentum": 0.99, "ema_overwrite_frequency": None}
    return neutral
