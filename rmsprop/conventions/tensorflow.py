"""Conventions of TensorFlow: the RMSprops of Keras and of TensorFlow 1, and that of Paddle, which follows it."""

from typing import SupportsFloat, Unpack

from rmsprop.conventions.shared import Further, Settings, epsilon_of, refuse
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Flag, Rate, Value
from rmsprop.settings.keras_config import translated


def keras(
    learning_rate: Rate = 0.001,
    rho: Value = 0.9,
    momentum: Value = 0.0,
    epsilon: SupportsFloat = 1e-7,
    centered: Flag = False,
    weight_decay: Rate | None = None,
    clipnorm: SupportsFloat | None = None,
    clipvalue: SupportsFloat | None = None,
    global_clipnorm: SupportsFloat | None = None,
    use_ema: Flag = False,
    ema_momentum: SupportsFloat = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: SupportsFloat | None = None,
    gradient_accumulation_steps: int | None = None,
    name: str | None = None,
    **settings: Unpack[Further],
) -> RMSprop:
    """Return the optimizer that computes as ``keras.optimizers.RMSprop`` of Keras 3, and of tf_keras from 2.11 on.

    With ``d = sqrt(rms + epsilon)`` or, if centered, ``d = sqrt(rms - mg**2 + epsilon)``::

        var = var - learning_rate * weight_decay * var
        rms = rho * rms + (1 - rho) * g**2
        mg  = rho * mg + (1 - rho) * g
        mom = momentum * mom + learning_rate * g / d
        var = var - mom                           # or without momentum var - learning_rate * g / d

    A variance that is negative by rounding, of which Keras takes the root to be NaN, counts as 0 here.

    Parameters
    ----------
    learning_rate : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.001
        A callable gets no argument, as in Keras.
    rho, momentum, epsilon, centered : as in `RMSprop`
    weight_decay : float, optional
    clipnorm, clipvalue, global_clipnorm : float, optional
        At most one of them, as in Keras; 0 does not clip.
    use_ema, ema_momentum, ema_overwrite_frequency : as in `RMSprop`
    gradient_accumulation_steps : int, optional
        The `accumulate` of `RMSprop`.
    loss_scale_factor : float, optional
        At least 1. What gradients are divided by; `minimize` multiplies the loss by it.
    name : str, optional
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`, if an argument has no counterpart, or if several limits are given.

    Notes
    -----
    Source: ``keras/src/optimizers/rmsprop.py`` and ``base_optimizer.py``, version 3.15.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> opt = conventions.keras(0.01, momentum=0.9, weight_decay=0.004, global_clipnorm=1.0)
    >>> opt.decoupled, opt.epsilon_in_sqrt
    (True, True)
    """
    config = {each: value for each, value in locals().items() if each != "settings"}
    limits = {each: config[each] for each in ("clipnorm", "clipvalue", "global_clipnorm")}
    if sum(limit is not None for limit in limits.values()) > 1:
        given = ", ".join(f"{each}={limit}" for each, limit in limits.items())
        raise ValueError(f"conventions.keras takes at most one limit, as Keras does; given {given}.")
    return RMSprop(**translated(config, (), config), **settings)


def keras_legacy(
    learning_rate: Rate = 0.001,
    rho: Value = 0.9,
    momentum: Value = 0.0,
    epsilon: SupportsFloat | None = 1e-7,
    centered: Flag = False,
    name: str | None = "RMSprop",
    **settings: Unpack[Settings],
) -> RMSprop:
    """Return the optimizer that computes as ``tf.keras.optimizers.legacy.RMSprop``, which is `RMSprop` itself.

    Parameters
    ----------
    learning_rate, rho, momentum, epsilon, centered, name : as in `RMSprop`
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.keras_legacy(0.01, momentum=0.9)
    RMSprop(learning_rate=0.01, momentum=0.9)
    """
    return RMSprop(learning_rate, rho, momentum, epsilon, centered, name, **settings)


def tensorflow1(
    learning_rate: Rate,
    decay: Value = 0.9,
    momentum: Value = 0.0,
    epsilon: SupportsFloat = 1e-10,
    use_locking: Flag = False,
    centered: Flag = False,
    name: str | None = "RMSProp",
    **settings: Unpack[Settings],
) -> RMSprop:
    """Return the optimizer that computes as ``tf.compat.v1.train.RMSPropOptimizer``.

    With ``d = sqrt(rms + epsilon)`` or, if centered, ``d = sqrt(rms - mg**2 + epsilon)``::

        rms = decay * rms + (1 - decay) * g**2    # from 1 on
        mg  = decay * mg + (1 - decay) * g
        mom = momentum * mom + learning_rate * g / d
        var = var - mom

    Parameters
    ----------
    learning_rate : float, 0-d array, Variable, callable or LearningRateSchedule
    decay : float, default 0.9
        The `rho` of `RMSprop`.
    momentum : float, default 0.0
    epsilon : float, default 1e-10
    use_locking : bool, default False
        Not needed: steps are taken one after the other.
    centered : bool, default False
    name : str, default "RMSProp"
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`.

    Notes
    -----
    Source: ``tensorflow/python/training/rmsprop.py``, and the kernels in ``core/kernels/training_ops.cc``.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> opt = conventions.tensorflow1(0.01, decay=0.95)
    >>> opt.rho, opt.decay
    (0.95, 0.0)
    """
    return RMSprop(
        learning_rate,
        decay,
        momentum,
        centered=centered,
        name=name,
        initial_accumulator=1.0,
        **epsilon_of("epsilon", epsilon, in_sqrt=True),
        **settings,
    )


def paddle(
    learning_rate: Rate,
    rho: Value = 0.95,
    epsilon: SupportsFloat = 1e-6,
    momentum: Value = 0.0,
    centered: Flag = False,
    weight_decay: Rate | None = None,
    grad_clip: None = None,
    name: str | None = None,
    **settings: Unpack[Settings],
) -> RMSprop:
    """Return the optimizer that computes as ``paddle.optimizer.RMSProp``.

    With ``d = sqrt(rms + epsilon)`` or, if centered, ``d = sqrt(rms - mg**2 + epsilon)``::

        g   = g + weight_decay * var
        rms = rho * rms + (1 - rho) * g**2
        mg  = rho * mg + (1 - rho) * g
        mom = momentum * mom + learning_rate * g / d
        var = var - mom

    Parameters
    ----------
    learning_rate : float, 0-d array, Variable, callable or LearningRateSchedule
    rho : float, default 0.95
    epsilon : float, default 1e-6
    momentum : float, default 0.0
    centered : bool, default False
    weight_decay : float, optional
        The coefficient of ``paddle.regularizer.L2Decay``.
    grad_clip : None
        Give `clipvalue`, `clipnorm` or `global_clipnorm` instead.
    name : str, optional
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`, or if there is a `grad_clip`.

    Notes
    -----
    Source: ``python/paddle/optimizer/rmsprop.py`` and its kernels. Other than its documentation says, the momentum
    is not Nesterov's.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.paddle(0.01, weight_decay=0.1).weight_decay
    0.1
    """
    refuse("paddle", "grad_clip", grad_clip, (None,), "give clipvalue, clipnorm or global_clipnorm")
    return RMSprop(
        learning_rate,
        rho,
        momentum,
        centered=centered,
        name=name,
        weight_decay=weight_decay,
        **epsilon_of("epsilon", epsilon, in_sqrt=True),
        **settings,
    )
