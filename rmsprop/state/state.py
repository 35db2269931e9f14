"""The state of an optimizer: all that it remembers between steps."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from rmsprop.arrays.libraries import checked_numbers
from rmsprop.formula import ACCUMULATOR, SLOTS
from rmsprop.locks import give_lock
from rmsprop.scopes import Replicas
from rmsprop.state.iterations import Iterations, check_count
from rmsprop.state.loss_scale import LossScale
from rmsprop.state.parameters import Parameter
from rmsprop.state.recognition import Parameters
from rmsprop.variables.nested import Tree
from rmsprop.variables.variable import Variable

STEPPING = "a step of this optimizer is under way."
"""What excludes other steps, and changes of what it works with."""


class HasSlots(Protocol):
    """A variable with its slots, as long as it is known by its name alone."""

    @property
    def slots(self) -> dict[str, Variable]:
        """The slots by their names."""
        ...


class Waiting(Protocol):
    """State that was loaded, until there are variables for it."""

    @property
    def owners(self) -> Sequence[HasSlots]:
        """The variables that have slots, in the order in which they became known."""
        ...

    def claim(self, settings: Any, parameters: Sequence[Parameter], variables: Tree) -> None:
        """Give the slots to parameters, the variables of which have names in the structure that they are in."""


class State:
    """The state of an optimizer.

    Attributes
    ----------
    lock : threading.RLock
        Held while anything changes; see `rmsprop.locks`.
    iterations : Iterations
    parameters : Parameters
        The variables that are known, with their slots.
    slot_names : list of str
        The names of the slots that there are, in order of creation.
    waiting : Waiting or None
    strategy : Replicas or None
        That of the scope of `rmsprop.distribute` that the optimizer was made in.
    occupied : str or None
        What goes on that excludes a step, in the words of a message.
    accumulated : Variable
        How many calls have added their gradients to what will be the mean gradient of a step.
    undecayed : list of str
        Patterns of the names of variables that are excluded from weight decay.
    """

    lock: Any

    def __init__(self) -> None:
        self.iterations = Iterations(np.zeros((), np.int64))
        self.parameters = Parameters()
        self.slot_names: list[str] = []
        self.waiting: Waiting | None = None
        self.strategy: Replicas | None = None
        self.occupied: str | None = None
        self.accumulated = Variable(0, trainable=False, name="accumulated", dtype=np.int64)
        self.undecayed: list[str] = []
        give_lock(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("lock", "occupied")}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept, occupied=None)
        give_lock(self)

    @property
    def ordered_slots(self) -> list[tuple[str, Variable]]:
        """The names of slots with the slots of all variables, in the order of `rmsprop.RMSprop.weights`."""
        names = dict.fromkeys([*SLOTS, *self.slot_names])
        owners: Iterable[HasSlots] = self.parameters if self.waiting is None else self.waiting.owners
        return [(name, owner.slots[name]) for name in names for owner in owners if name in owner.slots]

    @property
    def named_weights(self) -> list[tuple[str, Variable]]:
        """What `rmsprop.RMSprop.weights` are, with names that tell what they are."""
        last = [("accumulated", self.accumulated)] * (ACCUMULATOR in self.slot_names)
        return [("iterations", self.iterations), *self.ordered_slots, *last]

    def add(self, parameter: Parameter, name: str, slot: Variable) -> None:
        """Give a known parameter a slot."""
        parameter.slots[name] = slot
        self.note(name)

    def note(self, name: str) -> None:
        """Take note that there are slots of a name."""
        if name not in self.slot_names:
            self.slot_names.append(name)

    def forget(self, variables: Sequence[Any] | None) -> None:
        """Drop variables with their slots, by default all that nobody else holds."""
        if self.parameters.forget(variables):
            names = {name for parameter in self.parameters for name in parameter.slots}
            self.slot_names = [name for name in self.slot_names if name in names]

    def check_idle(self, doing: str, also_captures: bool = True) -> None:
        """Raise ``RuntimeError`` if something goes on with the variables as they are."""
        if self.occupied:
            raise RuntimeError(f"{doing} can't be called now: {self.occupied}")
        if also_captures and self.parameters.captured:
            raise RuntimeError(f"captured steps go on with their arrays: call discard_captured() before {doing}.")

    def replace_iterations(self, value: Any) -> None:
        """Count on from a number, or in the memory of a `Variable`."""
        if self.slot_names:
            raise RuntimeError(
                "Cannot set `iterations` to a new Variable after the optimizer's weights have been created; "
                "use opt.iterations.assign(n)."
            )
        if not isinstance(value, Variable):
            check_count(checked_numbers(value, "iterations"), "iterations")
            value = Variable(value, trainable=False, name="iterations", dtype=np.int64)
        if value.shape or value.dtype != np.int64 or not value.array.flags.writeable:
            raise ValueError(f"iterations must be an int64 scalar; given {value!r}.")
        check_count(value.array, "iterations")
        loss_scale = self.iterations.loss_scale
        self.attach(None)
        self.iterations = Iterations(value.array, value.name)
        self.attach(loss_scale)

    def attach(self, loss_scale: LossScale | None) -> None:
        """Let a loss scale, and no other, follow which steps are taken."""
        former = self.iterations.loss_scale
        followed = None if loss_scale is None else loss_scale.steps
        if followed is not None and followed is not self.iterations:
            raise ValueError(
                "loss_scale is that of another optimizer; expected one of its own, as its steps change it."
            )
        if former is not None:
            former.steps = None
        self.iterations.loss_scale = loss_scale
        if loss_scale is not None:
            loss_scale.steps = self.iterations
