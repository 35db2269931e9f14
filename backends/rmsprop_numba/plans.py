"""Facts about a variable that are found out once, and used in every step."""

from typing import Any, NamedTuple

from rmsprop.arrays.libraries import Host
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_numba import layout
from rmsprop_numba.aliases import owners_of
from rmsprop_numba.rows import Tables, tables_of

Array = Host


class Plan(NamedTuple):
    """A variable and its slots, as the kernels take them."""

    slot_count: int
    """How many slots there were; with `slots`, what the plan depends on."""
    slots: tuple[str, ...]
    """The names of those that the step needs."""
    tables: tuple[Array, *tuple[Array | None, ...]]
    """The arrays of a `rmsprop.formula.VariableState`; None for what the step does not use."""
    flat: list[Any] | None
    """Views of the tables with one axis, if they lie in memory in C order, without gaps, and aligned."""
    rows: Tables | None
    """The tables but the last by rows, if each row lies in memory in C order, without gaps, and aligned."""
    owners: frozenset[int]
    """Of the memory of the variable and all slots, see `rmsprop_numba.aliases.owners_of`."""


def plan_of(parameter: Updatable, hyper: Hyperparameters) -> Plan:
    """Return the plan of a parameter, made anew if slots have been added or another formula is used."""
    plan: Plan | None = parameter.plan
    if plan is None or plan.slot_count != len(parameter.slots) or plan.slots != hyper.slots:
        plan = parameter.plan = _plan(parameter, hyper)
    return plan


def _plan(parameter: Updatable, hyper: Hyperparameters) -> Plan:
    slots = parameter.slots
    used = [None if slot is None else slot.array for slot in hyper.used(slots)]
    tables = (parameter.variable.array, *used)
    encoded = [layout.encoded(a, hyper.complex_as_real) for a in tables]
    is_c = all(a is None or (a.flags.c_contiguous and a.flags.aligned) for a in encoded)
    return Plan(
        len(slots),
        hyper.slots,
        tables,
        layout.flat(encoded) if is_c else None,
        tables_of(encoded[:-1]),
        owners_of(v.array for v in (parameter.variable, *slots.values())),
    )
