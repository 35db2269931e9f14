"""The settings of an optimizer as they are kept, and the numbers of a step, which are read from them."""

from typing import Any

from rmsprop.formula import Hyperparameters, needed_slots
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings.checks import current
from rmsprop.state.state import State

LIMITS = ("clipvalue", "clipnorm", "global_clipnorm")


class Settings:
    """The settings of an optimizer as they are kept; `rmsprop.settings.rows` has a row for each.

    Parameters
    ----------
    state : State
        Of the optimizer: some settings can't be changed once there are slots.

    Attributes
    ----------
    values : dict of str to object
        By name. Callables, schedules, arrays and Variables are read at each step.
    has_momentum : bool
        Whether the momentum has ever been anything but the number 0, which chooses the formula.
    constant : Hyperparameters or None
        Those of all steps, if no step can differ.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.values: dict[str, Any] = {}
        self.has_momentum = False
        self.constant: Hyperparameters | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots that steps need, in order."""
        values = self.values
        return needed_slots(self.has_momentum, values["centered"], values["use_ema"], values["accumulate"] > 1)

    def read(self, step: int, learning_rate: Any = None) -> Hyperparameters:
        """Return the numbers of a step, with another learning rate if one is given; callables are called once."""
        if self.constant is not None:
            return self.constant if learning_rate is None else self.constant._replace(learning_rate=learning_rate)
        values, has_momentum = self.values, self.has_momentum
        numbers = {name: values[name] for name in Hyperparameters._fields if name in values}
        numbers["learning_rate"] = self.learning_rate_at(step) if learning_rate is None else learning_rate
        numbers["rho"] = current("rho", values["rho"], 0.0, 1.0)
        numbers["momentum"] = current("momentum", values["momentum"], 0.0, 1.0) if has_momentum else None
        decay = values["weight_decay"]  # of any other kind, it may be anything but 0 in the next step
        has_decay = type(decay) is not float or decay != 0.0
        calls = self.calls_before(step)
        numbers["weight_decay"] = current("weight_decay", decay, 0.0, step=calls) if has_decay else None
        if values["epsilon_in_sqrt"] is None:
            numbers["epsilon_in_sqrt"] = has_momentum
        if values["state_dtype"] is not None or values["bias_correction"] or values["use_ema"]:
            numbers["step"] = step
        numbers["ema_momentum"] = (values["ema_momentum"] if step else 0.0) if values["use_ema"] else None
        scale = numbers["loss_scale"] = 1.0 if values["loss_scale"] is None else values["loss_scale"].scale
        for name in LIMITS:
            if numbers[name] is not None:
                numbers[name] *= scale
        hyper = Hyperparameters(**numbers)
        is_constant = not self.depends_on_step() and all([type(values[name]) is float for name in READ])
        if is_constant and learning_rate is None:
            self.constant = hyper
        return hyper

    def depends_on_step(self, rounds: bool = True) -> bool:
        """Tell whether steps differ by their number alone, by default also in which way state is rounded."""
        values = self.values
        return (
            isinstance(values["learning_rate"], LearningRateSchedule)
            or isinstance(values["weight_decay"], LearningRateSchedule)
            or values["loss_scale"] is not None
            or bool(values["decay"])
            or (rounds and values["state_dtype"] is not None)
            or values["bias_correction"]
            or values["use_ema"]
        )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, with schedule and `decay`."""
        calls = self.calls_before(step)
        rate = current("learning_rate", self.values["learning_rate"], step=calls)
        decay: float = self.values["decay"]
        return rate / (1.0 + decay * calls) if decay else rate

    def calls_before(self, step: int) -> int:
        """Return how many calls come before that which takes a step: what schedules see, as in Keras."""
        accumulate: int = self.values["accumulate"]
        return (step + 1) * accumulate - 1


READ = ("learning_rate", "rho", "momentum", "weight_decay")
"""The settings that are read at each step."""
