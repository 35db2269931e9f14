"""State of Keras 3's RMSprop, and of tf_keras's, as weights of an optimizer, and back."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import Host, to_numpy
from rmsprop.conventions.shared import refuse_other_momentum, slots_of
from rmsprop.formula import ACCUMULATOR, AVERAGE
from rmsprop.optimizer import RMSprop
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings.checks import is_read_by_call

NAMES = {
    "rms": "velocity",
    "momentum": "momentum",
    "mg": "average_gradient",
    AVERAGE: "average",
    ACCUMULATOR: "gradient_accumulator",
}
"""What Keras calls the slots."""

ORDER = (AVERAGE, ACCUMULATOR, "rms", "momentum", "mg")
"""That in which Keras creates them."""

KINDS = ("iteration", "learning_rate", *NAMES.values())


def weights_from_keras(variables: Iterable[Any], gradient_accumulation_steps: int | None = None) -> list[Host]:
    """Return the state of ``keras.optimizers.RMSprop`` as `RMSprop.set_weights` takes it.

    Weights of ``tf.keras.optimizers.legacy.RMSprop`` are taken as they are.

    Parameters
    ----------
    variables : iterable of variables
        ``optimizer.variables`` of Keras 3 or of tf_keras, which are told apart by their paths or names.
    gradient_accumulation_steps : int, optional
        What Keras was given; it counts calls, of which so many make a step.

    Returns
    -------
    list of ndarray
        The number of steps; ``rms`` of all variables, ``momentum``, ``mg``, their averages with `use_ema`; with
        `gradient_accumulation_steps` sums of gradients and the number of calls since a step. The learning rate is
        left out.

    Raises
    ------
    TypeError
        If something among the variables has neither path nor name.
    ValueError
        If there is no such state, or more than that, or accumulated gradients without
        `gradient_accumulation_steps`, or these without those.

    Examples
    --------
    ::

        opt = conventions.keras(0.01, momentum=0.9)
        opt.build(arrays)
        opt.set_weights(conventions.weights_from_keras(model.optimizer.variables))
    """
    found: dict[str, list[Host]] = {kind: [] for kind in KINDS}
    for variable in variables:
        found[_kind(variable)].append(to_numpy(variable))
    count, n = found["iteration"], len(found["velocity"])
    slots = [found[kind] for kind in NAMES.values()]
    if len(count) != 1 or n == 0 or any(len(slot) not in (0, n) for slot in slots):
        numbers = {kind: len(arrays) for kind, arrays in found.items()}
        raise ValueError(f"expected the variables of an RMSprop of Keras that has been built; found {numbers}.")
    accumulates = bool(found[NAMES[ACCUMULATOR]])
    if accumulates != (gradient_accumulation_steps is not None):
        raise ValueError(
            f"the variables hold {'' if accumulates else 'no '}accumulated gradients; given "
            f"gradient_accumulation_steps={gradient_accumulation_steps!r}, expected what Keras was given."
        )
    steps, calls = divmod(int(count[0]), gradient_accumulation_steps or 1)
    arrays = [np.asarray(steps, np.int64), *[array for slot in slots for array in slot]]
    return [*arrays, np.asarray(calls, np.int64)] if accumulates else arrays


def weights_to_keras(optimizer: RMSprop) -> list[Host]:
    """Return the state of an optimizer as ``set_weights`` of ``keras.optimizers.RMSprop`` in Keras 3 takes it.

    Parameters
    ----------
    optimizer : RMSprop
        Made by `conventions.keras`, or like it.

    Returns
    -------
    list of ndarray
        The number of steps; the learning rate, if it is a number, as schedules are no variables there; averages of
        the variables with `use_ema`; sums of gradients with `accumulate`, with which the first number is that of
        calls; ``rms`` of all variables, ``momentum`` and ``mg``. That of tf_keras has no learning rate: leave it
        out.

    Raises
    ------
    ValueError
        If the optimizer has no state yet, or its momentum does not include the learning rate.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import conventions
    >>> opt, x = conventions.keras(0.25), np.ones(2)
    >>> opt.build([x])
    >>> conventions.weights_to_keras(opt)
    [array(0), array(0.25), array([0., 0.])]
    """
    count, slots = slots_of(optimizer, (*ORDER, "accumulated"))
    calls = count * optimizer.accumulate + sum(map(int, slots.pop("accumulated")))
    if slots["momentum"]:
        refuse_other_momentum(optimizer, True, "keras")
    rate = optimizer._settings.values["learning_rate"]
    is_number = not (isinstance(rate, LearningRateSchedule) or is_read_by_call(rate))
    rates = [np.asarray(optimizer.current_learning_rate)] if is_number else []
    return [np.asarray(calls, np.int64), *rates, *[slot for kept in slots.values() for slot in kept]]


def _kind(variable: Any) -> str:
    """Return what a variable of an optimizer of Keras is."""
    path = getattr(variable, "path", None)  # in Keras 3, such as "rmsprop/dense_kernel_velocity"
    name = getattr(variable, "name", None)  # in tf_keras, such as "velocity/dense/kernel:0"
    if not isinstance(path or name, str):
        raise TypeError(f"expected variables of an optimizer of Keras, with a path or a name; given {variable!r}.")
    last = path.rpartition("/")[2] if path else str(name).partition("/")[0].partition(":")[0]
    for kind in KINDS:
        if last == kind or (path and last.endswith(f"_{kind}")):
            return kind
    raise ValueError(
        f"{path or name!r} is none of {', '.join(KINDS)} of an RMSprop of Keras. To leave it behind, pass the "
        f"variables without it."
    )
