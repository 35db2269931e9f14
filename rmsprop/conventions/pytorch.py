"""Conventions of PyTorch: its own RMSprop, timm's RMSpropTF and that of bitsandbytes."""

from typing import SupportsFloat, Unpack

from rmsprop.conventions.shared import Settings, epsilon_of, refuse
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Flag, Rate, Value


def torch(
    lr: Rate = 1e-2,
    alpha: Value = 0.99,
    eps: SupportsFloat = 1e-8,
    weight_decay: Rate = 0,
    momentum: Value = 0,
    centered: Flag = False,
    capturable: Flag = False,
    foreach: Flag | None = None,
    maximize: Flag = False,
    differentiable: Flag = False,
    **settings: Unpack[Settings],
) -> RMSprop:
    """Return the optimizer that computes as ``torch.optim.RMSprop``.

    With ``d = sqrt(rms) + eps`` or, if centered, ``d = sqrt(rms - mg**2) + eps``::

        g   = g + weight_decay * var              # of -g with maximize
        rms = alpha * rms + (1 - alpha) * g**2
        mg  = alpha * mg + (1 - alpha) * g
        mom = momentum * mom + g / d
        var = var - lr * mom                      # or without momentum var - lr * g / d

    Real and imaginary part of complex numbers count as two real ones. A variance that is negative by rounding, of
    which PyTorch takes the root to be NaN, counts as 0 here, and 0 / 0 is 0, also with ``eps=0``.

    Parameters
    ----------
    lr : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.01
        A schedule in the place of one of ``torch.optim.lr_scheduler``; or assign to `learning_rate`.
    alpha : float, default 0.99
        The `rho` of `RMSprop`.
    eps : float, default 1e-8
    weight_decay : float, default 0
        Added to the gradient, times the variable, after clipping.
    momentum : float, default 0
    centered : bool, default False
    capturable, foreach : optional
        Not needed: they change how PyTorch computes, and not what.
    maximize : bool, default False
    differentiable : bool, default False
        Must be False: see `rmsprop.functional` for steps that can be differentiated.
    **settings
        What else `RMSprop` takes, such as ``global_clipnorm`` for ``torch.nn.utils.clip_grad_norm_``.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`, or if `differentiable` is True.

    Notes
    -----
    Source: ``torch/optim/rmsprop.py``, version 2.13.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import conventions
    >>> x = np.array([3.0, -2.0])
    >>> opt = conventions.torch(lr=0.1, momentum=0.9, weight_decay=0.5)
    >>> _ = opt.apply_gradients([(2 * x, x)])
    >>> x.round(6)
    array([ 2., -1.])
    """
    refuse("torch", "differentiable", differentiable, (False,), "differentiate a step of rmsprop.functional")
    return RMSprop(
        lr,
        alpha,
        momentum,
        centered=centered,
        weight_decay=weight_decay,
        maximize=maximize,
        momentum_includes_lr=False,
        complex_as_real=True,
        **epsilon_of("eps", eps, in_sqrt=False),
        **settings,
    )


def timm(
    lr: Rate = 1e-2,
    alpha: Value = 0.9,
    eps: SupportsFloat = 1e-10,
    weight_decay: Rate = 0,
    momentum: Value = 0.0,
    centered: Flag = False,
    decoupled_decay: Flag = False,
    corrected_weight_decay: Flag = False,
    lr_in_momentum: Flag = True,
    caution: Flag = False,
    foreach: Flag | None = None,
    **settings: Unpack[Settings],
) -> RMSprop:
    """Return the optimizer that computes as timm's ``RMSpropTF``, which follows TensorFlow 1.

    With ``d = sqrt(rms + eps)`` or, if centered, ``d = sqrt(rms - mg**2 + eps)``::

        g   = g + weight_decay * var              # or, if decoupled, var = var - lr * weight_decay * var
        rms = alpha * rms + (1 - alpha) * g**2    # from 1 on
        mg  = alpha * mg + (1 - alpha) * g
        mom = momentum * mom + lr * g / d
        var = var - mom                           # or without momentum var - lr * g / d

    and without `lr_in_momentum`, ``lr`` is a factor of ``mom`` in the last line instead.

    Parameters
    ----------
    lr : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.01
    alpha : float, default 0.9
        The `rho` of `RMSprop`.
    eps : float, default 1e-10
    weight_decay : float, default 0
    momentum : float, default 0.0
    centered, decoupled_decay : bool, default False
    corrected_weight_decay, caution : bool, default False
        Must be False: there is no counterpart.
    lr_in_momentum : bool, default True
    foreach : bool, optional
        Not needed: it changes how PyTorch computes, and not what.
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`, or if an argument has no counterpart.

    Notes
    -----
    Source: ``timm/optim/rmsprop_tf.py``, version 1.0.31.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> opt = conventions.timm(lr=0.1, weight_decay=1e-5, momentum=0.9)
    >>> opt.rho, opt.initial_accumulator
    (0.9, 1.0)
    """
    refuse("timm", "corrected_weight_decay", corrected_weight_decay, (False,), "give weight_decay a schedule")
    refuse("timm", "caution", caution, (False,), "leave it out")
    return RMSprop(
        lr,
        alpha,
        momentum,
        centered=centered,
        weight_decay=weight_decay,
        decoupled=decoupled_decay,
        momentum_includes_lr=lr_in_momentum,
        initial_accumulator=1.0,
        complex_as_real=True,
        **epsilon_of("eps", eps, in_sqrt=True),
        **settings,
    )


def bitsandbytes(
    lr: Rate = 1e-2,
    alpha: Value = 0.99,
    eps: SupportsFloat = 1e-8,
    weight_decay: Rate = 0,
    momentum: SupportsFloat = 0,
    centered: Flag = False,
    optim_bits: int = 32,
    args: object = None,
    min_8bit_size: int = 4096,
    percentile_clipping: int = 100,
    block_wise: Flag = True,
    **settings: Unpack[Settings],
) -> RMSprop:
    """Return the optimizer that computes as ``bitsandbytes.optim.RMSprop`` with state of 32 bits.

    ::

        g   = g + weight_decay * var
        rms = alpha * rms + (1 - alpha) * g**2
        var = var - lr * g / (sqrt(rms) + eps)

    Parameters
    ----------
    lr : float, 0-d array, Variable, callable or LearningRateSchedule, default 0.01
    alpha : float, default 0.99
        The `rho` of `RMSprop`.
    eps : float, default 1e-8
    weight_decay : float, default 0
    momentum : float, default 0
        Not used: the kernels of bitsandbytes leave it out, whatever it is.
    centered : bool, default False
        Must be False, as in bitsandbytes.
    optim_bits : int, default 32
        Must be 32. The state of 8 bits here is another one, ``state_dtype="uint8"``.
    args, min_8bit_size, block_wise : optional
        Not used: they belong to state of 8 bits.
    percentile_clipping : int, default 100
        Must be 100, which clips nothing.
    **settings
        What else `RMSprop` takes.

    Returns
    -------
    RMSprop

    Raises
    ------
    TypeError, ValueError
        As `RMSprop`, or if an argument has no counterpart.

    Notes
    -----
    Source: ``bitsandbytes/optim/rmsprop.py`` and its kernels.

    Examples
    --------
    >>> from rmsprop import conventions
    >>> conventions.bitsandbytes(momentum=0.9).momentum
    0.0
    """
    refuse("bitsandbytes", "centered", centered, (False,), "use conventions.torch(centered=True)")
    refuse("bitsandbytes", "optim_bits", optim_bits, (32,), "give state_dtype='uint8'")
    refuse("bitsandbytes", "percentile_clipping", percentile_clipping, (100,), "give clipnorm a number")
    return RMSprop(
        lr,
        alpha,
        weight_decay=weight_decay,
        complex_as_real=True,
        **epsilon_of("eps", eps, in_sqrt=False),
        **settings,
    )
