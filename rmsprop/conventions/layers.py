"""Conventions of libraries of layers: Chainer and MXNet."""

from typing import SupportsFloat, Unpack

from rmsprop.conventions.shared import WithDecay, WithNorms, epsilon_of, refuse
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Flag, Rate, Value


def chainer(
    lr: Rate = 0.01,
    alpha: Value = 0.99,
    eps: SupportsFloat = 1e-8,
    eps_inside_sqrt: Flag = False,
    **settings: Unpack[WithDecay],
) -> RMSprop:
    """Return the optimizer that computes as ``chainer.optimizers.RMSprop``.

    ::

        rms = alpha * rms + (1 - alpha) * g**2
        var = var - lr * g / (sqrt(rms) + eps)    # or lr * g / sqrt(rms + eps)

    Parameters
    ----------
    lr : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.01
    alpha : float, default 0.99
        The `rho` of `RMSprop`.
    eps : float, default 1e-8
    eps_inside_sqrt : bool, default False
    **settings
        What else `RMSprop` takes: ``weight_decay`` for the hook ``WeightDecay``, ``global_clipnorm`` for
        ``GradientClipping``, `clipvalue` for ``GradientHardClipping``.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`.

    Notes
    -----
    Source: ``chainer/optimizers/rmsprop.py``, version 7.8.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.chainer(eps_inside_sqrt=True).epsilon_in_sqrt
    True
    """
    return RMSprop(lr, alpha, **epsilon_of("eps", eps, eps_inside_sqrt), **settings)


def chainer_graves(
    lr: Rate = 1e-4,
    alpha: Value = 0.95,
    momentum: Value = 0.9,
    eps: SupportsFloat = 1e-4,
    **settings: Unpack[WithDecay],
) -> RMSprop:
    """Return the optimizer that computes as ``chainer.optimizers.RMSpropGraves``.

    ::

        rms = alpha * rms + (1 - alpha) * g**2
        mg  = alpha * mg + (1 - alpha) * g
        mom = momentum * mom + lr * g / sqrt(rms - mg**2 + eps)
        var = var - mom

    Chainer's ``delta`` is ``-mom``.

    Parameters
    ----------
    lr : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.0001
    alpha : float, default 0.95
        The `rho` of `RMSprop`.
    momentum : float, default 0.9
    eps : float, default 0.0001
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
    Source: ``chainer/optimizers/rmsprop_graves.py``, version 7.8, after A. Graves, *Generating Sequences With
    Recurrent Neural Networks*, arXiv:1308.0850, equations 38 to 45.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.chainer_graves().centered
    True
    """
    return RMSprop(lr, alpha, momentum, centered=True, **epsilon_of("eps", eps, in_sqrt=True), **settings)


def mxnet(
    learning_rate: Rate = 0.001,
    rho: Value = 0.9,
    momentum: Value = 0.9,
    epsilon: SupportsFloat = 1e-8,
    centered: Flag = False,
    clip_weights: None = None,
    use_fused_step: Flag = True,
    *,
    wd: Rate = 0.0,
    clip_gradient: SupportsFloat | None = None,
    **settings: Unpack[WithNorms],
) -> RMSprop:
    """Return the optimizer that computes as ``mxnet.optimizer.RMSProp``.

    ::

        g   = g + wd * var
        rms = rho * rms + (1 - rho) * g**2
        var = var - learning_rate * g / (sqrt(rms) + epsilon)

    or, if centered::

        mg  = rho * mg + (1 - rho) * g
        mom = momentum * mom + learning_rate * g / sqrt(rms - mg**2 + epsilon)
        var = var - mom

    MXNet's ``mom`` and ``delta`` are ``-mom``.

    Parameters
    ----------
    learning_rate : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.001
    rho : float, default 0.9
        ``gamma1`` before MXNet 2.
    momentum : float, default 0.9
        ``gamma2`` before MXNet 2. Not used unless `centered`, as in MXNet.
    epsilon : float, default 1e-8
    centered : bool, default False
    clip_weights : None
        Give a `Variable` a constraint instead.
    use_fused_step : bool, default True
        Not needed: it changes how MXNet computes, and not what.
    wd : float, default 0.0
        Added to the gradient, times the variable, after clipping.
    clip_gradient : float, optional
        The largest absolute value of an element of a gradient.
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`, or if there are `clip_weights`.

    Notes
    -----
    Source: ``python/mxnet/optimizer/rmsprop.py``, version 2, and ``src/operator/optimizer_op-inl.h``.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.mxnet().momentum, conventions.mxnet(centered=True).momentum
    (0.0, 0.9)
    """
    refuse("mxnet", "clip_weights", clip_weights, (None,), "give the Variable a constraint")
    return RMSprop(
        learning_rate,
        rho,
        momentum if centered else 0.0,
        centered=centered,
        weight_decay=wd,
        clipvalue=clip_gradient,
        **epsilon_of("epsilon", epsilon, in_sqrt=centered),
        **settings,
    )
