"""Steps over a list of contiguous arrays in the host's memory that are taken again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.backends import SPARSE, Gradient, Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_numba import headers
from rmsprop_numba.lists import ListPlan, list_plan_of
from rmsprop_shared import exchange
from rmsprop_shared.steps import SharedBackend
from rmsprop_shared.twins import Twin


class Replayed:
    """What takes steps again over a list of arrays that describe themselves; a `rmsprop.backends.Replay`.

    Parameters
    ----------
    backend : SharedBackend
    parameters : sequence of Updatable
    plan : rmsprop_numba.lists.ListPlan
        That of their twins.
    twins : list of Twin
    kind : type
        That of gradients.
    slots : tuple of str
        The names of those that the step uses.
    """

    def __init__(
        self,
        backend: SharedBackend,
        parameters: Sequence[Updatable],
        plan: ListPlan,
        twins: list[Twin],
        kind: type,
        slots: tuple[str, ...],
    ) -> None:
        self._backend, self.plan, self._slots = backend, plan, slots
        self._arrays = [parameter.variable.array for parameter in parameters]
        self._variables = [parameter.variable for parameter in parameters if not parameter.is_raw]
        self._function = exchange.function_of(kind) or 0
        views = [twin.variable.array for twin in twins]
        self._complex = [a for a, view in zip(self._arrays, views, strict=True) if view.dtype.kind == "c"]
        keys = [parameter.key for parameter in parameters]
        self._kinds = np.array([id(tuple), id(kind)], np.int64)
        self._expected = exchange.expected_of(self._function, keys, self._arrays, views)
        self._occupied = headers.occupied_by(
            [a for twin in twins for a in (twin.variable.array, *[twin.slots[name].array for name in slots])]
        )

    def __len__(self) -> int:
        return len(self._arrays)

    def accept(self, given: list[Any], slots: tuple[str, ...], hyper: Hyperparameters | None) -> Host | None:
        """Return the addresses of the gradients if all is as it was when the plan was made, else None."""
        if self._expected is None or slots != self._slots or len(given) != len(self._arrays):
            return None
        for variable in self._variables:
            if variable.constraint is not None or not variable.trainable:
                return None
        found, words = np.empty(len(given), np.int64), np.empty(exchange.WORDS, np.int64)
        if not exchange.read(id(given), self._function, self._kinds, self._expected, self._occupied, found, words):
            return None
        return found if self._backend.are_plain(given, self._complex) else None

    def step(self, gradients: Host, hyper: Hyperparameters) -> int | None:
        """Take a step with the gradients at these addresses, or return the position of one that forbids it."""
        position = self.plan.step(gradients, hyper)
        if position is None:
            self._backend.changed(self._arrays)
        return position


def keep(
    backend: SharedBackend,
    parameters: Sequence[Updatable],
    twins: list[Twin],
    views: Sequence[Gradient],
    kind: type,
    hyper: Hyperparameters,
) -> None:
    """Keep what takes a step again, if all arrays are contiguous and those of a type describe themselves."""
    if exchange.function_of(kind) is None:
        return
    for twin, view in zip(twins, views, strict=True):
        if isinstance(view, SPARSE) or twin.plan is None or twin.plan.flat is None:
            return
        if not (view.flags.c_contiguous and view.flags.aligned):
            return
    plan = list_plan_of(twins, [twin.plan for twin in twins])
    first = parameters[0]
    kept: Replayed | None = first.plans.get(id(first.key))
    if kept is None or kept.plan is not plan:
        first.plans.keep(id(first.key), Replayed(backend, parameters, plan, twins, kind, hyper.slots))
