"""Conventions of libraries of plain functions: optax, JAX, autograd and Julia's Optimisers.jl."""

from typing import SupportsFloat, Unpack

import numpy as np

from rmsprop.conventions.shared import CountedRate, WithDecay, counted, epsilon_of
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Flag, Rate, Value


def optax(
    learning_rate: CountedRate,
    decay: Value = 0.9,
    eps: SupportsFloat = 1e-8,
    initial_scale: SupportsFloat = 0.0,
    eps_in_sqrt: Flag = True,
    centered: Flag = False,
    momentum: Value | None = None,
    nesterov: Flag = False,
    bias_correction: Flag = False,
    **settings: Unpack[WithDecay],
) -> RMSprop:
    """Return the optimizer that computes as ``optax.rmsprop``.

    With ``d = sqrt(rms + eps)`` or ``d = sqrt(rms) + eps``, and if centered ``rms - |mg|**2`` below the root in
    the place of ``rms``::

        rms = decay * rms + (1 - decay) * |g|**2  # from initial_scale on
        mg  = decay * mg + (1 - decay) * g
        u   = learning_rate * g / d
        mom = momentum * mom + u
        var = var - mom                           # with nesterov, var - (momentum * mom + u)

    With `bias_correction`, ``d`` is made of ``rms`` and ``mg`` divided by ``1 - decay**t``, where ``t`` is the
    number of the step, from 1 on. A variance that is negative by rounding, of which optax takes the root to be
    NaN, as it often is in the first step then, counts as 0 here.

    Parameters
    ----------
    learning_rate : float, 0-d array, Variable, callable or LearningRateSchedule
        A callable, such as a schedule of optax, gets the number of finished steps.
    decay : float, default 0.9
        The `rho` of `RMSprop`.
    eps : float, default 1e-8
    initial_scale : float, default 0.0
        What the average of squares begins with.
    eps_in_sqrt : bool, default True
    centered : bool, default False
    momentum : float, optional
        With 0.0, as in optax, steps are those without momentum, but are remembered.
    nesterov, bias_correction : bool, default False
    **settings
        What else `RMSprop` takes: ``weight_decay`` for ``optax.add_decayed_weights``, or with ``decoupled=True``
        for that between ``scale_by_rms`` and the learning rate; ``global_clipnorm`` for
        ``optax.clip_by_global_norm``.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`.

    Notes
    -----
    Source: ``optax/_src/alias.py`` and ``transform.py``, version 0.2.8.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import conventions
    >>> x = np.array([3.0, -2.0])
    >>> opt = conventions.optax(lambda count: 0.1 * 0.5**count, bias_correction=True)
    >>> for _ in range(2):
    ...     _ = opt.apply_gradients([(2 * x, x)])
    >>> opt.current_learning_rate, x.round(2)
    (0.025, array([ 2.85, -1.85]))
    """
    if isinstance(momentum, int | float) and momentum == 0:
        momentum = np.array(0.0)  # the number 0 would mean that no step is remembered
    return RMSprop(
        counted(learning_rate),
        decay,
        0.0 if momentum is None else momentum,
        centered=centered,
        initial_accumulator=initial_scale,
        nesterov=nesterov,
        bias_correction=bias_correction,
        **epsilon_of("eps", eps, eps_in_sqrt),
        **settings,
    )


def jax(
    step_size: CountedRate,
    gamma: Value = 0.9,
    eps: SupportsFloat = 1e-8,
    momentum: Value | None = None,
    **settings: Unpack[WithDecay],
) -> RMSprop:
    """Return the optimizer that computes as ``rmsprop`` or ``rmsprop_momentum`` of ``jax.example_libraries``.

    ::

        rms = gamma * rms + (1 - gamma) * g**2
        mom = momentum * mom + step_size * g / sqrt(rms + eps)
        var = var - mom                           # without momentum, var - step_size * g / sqrt(rms + eps)

    Parameters
    ----------
    step_size : float, 0-d array, Variable, callable or LearningRateSchedule
        A callable gets the number of finished steps.
    gamma : float, default 0.9
        The `rho` of `RMSprop`.
    eps : float, default 1e-8
    momentum : float, optional
        None for ``rmsprop``; a number for ``rmsprop_momentum``, where its default is 0.9.
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
    Of complex gradients, JAX averages ``g**2``, which is complex, where this has ``|g|**2``.

    Source: ``jax/example_libraries/optimizers.py``, version 0.10.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.jax(lambda count: 0.1 / (1 + count)).current_learning_rate
    0.1
    """
    return RMSprop(
        counted(step_size),
        gamma,
        0.0 if momentum is None else momentum,
        **epsilon_of("eps", eps, in_sqrt=True),
        **settings,
    )


def autograd(
    step_size: Rate = 0.1, gamma: Value = 0.9, eps: SupportsFloat = 10**-8, **settings: Unpack[WithDecay]
) -> RMSprop:
    """Return the optimizer that computes as ``autograd.misc.optimizers.rmsprop``.

    ::

        rms = gamma * rms + (1 - gamma) * g**2    # from 1 on
        var = var - step_size * g / (sqrt(rms) + eps)

    Parameters
    ----------
    step_size : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.1
    gamma : float, default 0.9
        The `rho` of `RMSprop`.
    eps : float, default 1e-8
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
    Of complex gradients, autograd averages ``g**2``, which is complex, where this has ``|g|**2``.

    Source: ``autograd/misc/optimizers.py``, version 1.9.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.autograd().initial_accumulator
    1.0
    """
    return RMSprop(step_size, gamma, initial_accumulator=1.0, **epsilon_of("eps", eps, in_sqrt=False), **settings)


def julia(
    eta: Rate = 0.001,
    rho: Value = 0.9,
    epsilon: SupportsFloat = 1e-8,
    *,
    centred: Flag = False,
    centered: Flag = False,
    **settings: Unpack[WithDecay],
) -> RMSprop:
    """Return the optimizer that computes as ``RMSProp`` of Julia's Optimisers.jl.

    With ``d = sqrt(rms) + epsilon`` or, if centred, ``d = sqrt(rms - |mg|**2) + epsilon``::

        rms = rho * rms + (1 - rho) * |g|**2
        mg  = rho * mg + (1 - rho) * g
        var = var - eta * g / d

    Parameters
    ----------
    eta : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.001
    rho : float, default 0.9
    epsilon : float, default 1e-8
    centred, centered : bool, default False
        One of them will do.
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
    Source: ``src/rules.jl`` of Optimisers.jl, version 0.4.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.julia(0.01, centred=True).centered
    True
    """
    return RMSprop(
        eta, rho, centered=centred or centered, **epsilon_of("epsilon", epsilon, in_sqrt=False), **settings
    )
