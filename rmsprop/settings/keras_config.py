"""Configurations of Keras 3 and of tf_keras's present optimizers, in the terms of this library."""

from collections.abc import Collection, Mapping
from typing import Any

from rmsprop.schedules.serialization import unwrapped

PRESENT: dict[str, tuple[Any, ...] | None] = {
    "weight_decay": (None, 0),
    "use_ema": (None, False),
    "ema_momentum": None,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": (None, 1),
    "gradient_accumulation_steps": (None, 1),
    "jit_compile": None,
    "is_legacy_optimizer": None,
}
"""Keys that only present configurations have, with the values that change nothing; None where none does."""

LIMITS = ("clipnorm", "global_clipnorm", "clipvalue")
"""In the order in which Keras looks at them: the first that is above 0 clips, and no other."""


def translated(config: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Return the settings of a configuration, those of the legacy optimizer and of this library as they are.

    Parameters
    ----------
    config : mapping
    own : collection of str
        Arguments of the optimizer's own constructor, which mean what that says.

    Raises
    ------
    ValueError
        If a present configuration asks for what is not done here.
    """
    settings = {key: unwrapped(value) for key, value in config.items()}
    present = {key: settings.pop(key) for key in PRESENT if key in settings and key not in own}
    if present.get("is_legacy_optimizer", not present):
        return settings
    for key, value in present.items():
        neutral = PRESENT[key]
        if neutral is not None and value not in neutral:
            raise ValueError(
                f"{key}={value!r} of a configuration of Keras asks for what this optimizer does not do; expected "
                f"{neutral[0]!r} or {neutral[1]!r}. Without it, leave the key out."
            )
    if not settings.get("epsilon", True):
        raise ValueError(f"epsilon={settings['epsilon']!r} of a configuration of Keras: expected more than 0.")
    clipping = [limit for limit in LIMITS if (settings.get(limit) or 0) > 0]
    unused = {limit: None for limit in LIMITS if limit in settings and limit not in clipping[:1]}
    return {**settings, **unused, "epsilon_in_sqrt": True}
