"""Variables and slots as views of their memory, for the backend that updates it."""

from collections.abc import Callable, Mapping
from typing import Any

from rmsprop.arrays.libraries import Array
from rmsprop.backends import HasArray, Updatable


class Held:
    """A view of the memory of a variable or a slot."""

    __slots__ = ("array", "constraint", "trainable")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.constraint: Callable[[Array], Array] | None = None
        self.trainable = True


class Twin:
    """A variable and its slots as views of their memory; an `rmsprop.backends.Updatable`.

    It keeps the memory alive, but neither the variable nor, as it is the variable's plan, more than that.

    Parameters
    ----------
    parameter : Updatable
    facts : tuple
        What tells where the variable lies in memory.
    view : callable
        Returns a view of an array's memory.
    """

    def __init__(self, parameter: Updatable, facts: Any, view: Callable[[Array], Array]) -> None:
        self._facts, self._name = facts, str(parameter)
        self._sources = {name: slot.array for name, slot in parameter.slots.items()}
        self.variable: HasArray = Held(view(parameter.variable.array))
        self.slots: Mapping[str, HasArray] = {name: Held(view(array)) for name, array in self._sources.items()}
        self.plan: Any = None
        self.notes, self.plans, self.multipliers = parameter.notes, parameter.plans, parameter.multipliers
        self.shape, self.key, self.is_raw = parameter.shape, self.variable.array, True

    def __str__(self) -> str:
        return self._name

    def lies_at(self, facts: Any) -> bool:
        """Tell whether the variable lies where it did when the views were made."""
        return bool(self._facts == facts)

    def has_slots_of(self, parameter: Updatable) -> bool:
        """Tell whether the slots are those that there were."""
        slots, sources = parameter.slots, self._sources
        return len(slots) == len(sources) and all([slots[n].array is a for n, a in sources.items() if n in slots])


def twin_of(parameter: Updatable, facts: Any, view: Callable[[Array], Array]) -> Twin:
    """Return the twin of a parameter, made anew if its memory or slots are others.

    Backends know it by its identity: then all plans are dropped.
    """
    twin: Twin | None = parameter.plan
    if twin is None or not (twin.lies_at(facts) and twin.has_slots_of(parameter)):
        parameter.plans.clear()
        twin = parameter.plan = Twin(parameter, facts, view)
    return twin
