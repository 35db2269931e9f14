"""What is found out about a variable once, and used in every step."""

from typing import Any, NamedTuple

import numpy as np

from rmsprop.backends import Hyperparameters, Updatable
from rmsprop_numba import layout
from rmsprop_numba.aliases import owners_of
from rmsprop_numba.rows import Tables, tables_of

Array = np.ndarray[Any, Any]


class Plan(NamedTuple):
    """A variable and its slots, as the kernels take them."""

    slots: int
    """How many slots there were; with `variant`, what the plan depends on."""
    variant: tuple[bool, bool]
    tables: tuple[Array, Array, Array | None, Array | None]
    """The variable, ``rms``, ``momentum`` and ``mg``; None for what the step does not use."""
    flat: list[Any] | None
    """Views of the tables with one axis, if they lie in memory in C order, without gaps, and aligned."""
    rows: Tables | None
    """The tables by rows, if each row lies in memory in C order, without gaps, and aligned."""
    owners: frozenset[int]
    """Of the memory of the variable and all slots, see `rmsprop_numba.aliases.owners_of`."""


def plan_of(parameter: Updatable, hyper: Hyperparameters) -> Plan:
    """Return the plan of a parameter, made anew if slots have been added or another formula is used."""
    plan: Plan | None = parameter.plan
    variant = hyper.momentum is None, hyper.centered
    if plan is None or plan.slots != len(parameter.slots) or plan.variant != variant:
        plan = parameter.plan = _plan(parameter, hyper, variant)
    return plan


def _plan(parameter: Updatable, hyper: Hyperparameters, variant: tuple[bool, bool]) -> Plan:
    slots = parameter.slots
    mom = None if hyper.momentum is None else slots["momentum"].array
    mg = slots["mg"].array if hyper.centered else None
    tables = (parameter.variable.array, slots["rms"].array, mom, mg)
    encoded = [layout.encoded(a, hyper.complex_as_real) for a in tables]
    is_c = all(a is None or (a.flags.c_contiguous and a.flags.aligned) for a in encoded)
    return Plan(
        len(slots),
        variant,
        tables,
        layout.flat(encoded) if is_c else None,
        tables_of(encoded),
        owners_of(v.array for v in (parameter.variable, *slots.values())),
    )
