"""Steps over a list of contiguous arrays: what is found out about the list once, and how a step is taken."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from rmsprop import norms
from rmsprop.arrays.libraries import Host
from rmsprop.backends import Updatable, multipliers_of
from rmsprop.formula import MULTIPLIED, Hyperparameters, Multipliers
from rmsprop_numba import headers, list_kernels
from rmsprop_numba.compilation import compile_for
from rmsprop_numba.pieces import Division, divided
from rmsprop_numba.plans import Plan
from rmsprop_numba.threads import PARALLEL_FROM, Job, in_turn, run, uses_threads
from rmsprop_numba.variables import address

Array = Host


class ListPlan:
    """What is known about a list of parameters; a `rmsprop.backends.Replay`.

    It does not change from step to step, so that threads can share it.

    Parameters
    ----------
    parameters : sequence of Updatable
    plans : sequence of Plan
        Theirs, each with ``flat``.
    """

    def __init__(self, parameters: Sequence[Updatable], plans: Sequence[Plan]) -> None:
        self._plans = list(plans)
        self._slots = plans[0].slots
        rows = [tuple(plan.flat or ()) for plan in plans]
        self.division = divided(rows)
        addresses = [[0 if a is None else address(a) for a in row] for row in rows]
        self._addresses = np.array(addresses, np.int64)
        self._numbers: tuple[Hyperparameters | None, tuple[Any, ...], tuple[bool, ...]] = None, (), ()
        self._multipliers = multipliers_of(parameters)
        self._compiled: set[Any] = set()
        self._largest = max(batch.size for batch in self.division.batches)
        arrays = [plan.tables[0] for plan in plans]
        self._variables = [p.variable for p in parameters if not p.is_raw]
        tables = [table for plan in plans for table in plan.tables if table is not None]
        self._is_known = headers.is_known()
        self._expected = headers.expected_of([p.key for p in parameters], arrays)
        self._occupied = headers.occupied_by(tables)

    def __len__(self) -> int:
        return len(self._plans)

    def is_of(self, plans: Sequence[Plan]) -> bool:
        """Tell whether it is the plan of a list of parameters, given by their own plans."""
        return len(plans) == len(self._plans) and all([a is b for a, b in zip(plans, self._plans, strict=True)])

    def accept(self, given: list[Any], slots: tuple[str, ...], hyper: Hyperparameters | None) -> Array | None:
        """Return the addresses of the gradients if all is as it was when the plan was made, else None."""
        if not self._is_known or slots != self._slots or len(given) != len(self._plans):
            return None
        for variable in self._variables:
            if variable.constraint is not None or not variable.trainable:
                return None
        gradients = np.empty(len(given), np.int64)
        return gradients if headers.read(id(given), self._expected, self._occupied, gradients) else None

    def step(self, gradients: Array, hyper: Hyperparameters) -> int | None:
        """Take a step with the gradients at these addresses, or return the position of one that forbids it."""
        factors = magnitudes = None
        if hyper.clips_by_norm:
            measure = norms.Measure(partial(squared_norms, self.division, gradients, hyper.clipvalue))
            ((factors, magnitudes),) = norms.clippings([measure], hyper)
        elif hyper.loss_scale != 1.0:
            factors = np.array([(1.0 / hyper.loss_scale, 1.0)] * len(self))
        if hyper.nonfinite != "propagate":
            position = norms.first(magnitudes, hyper, lambda: first_nonfinite(self.division, gradients))
            if position is not None:
                return position
        for function, arguments in self.jobs(gradients, factors, hyper):
            function(*arguments)
        return None

    def jobs(self, gradients: Array, factors: Array | None, hyper: Hyperparameters) -> list[Job]:
        """Return the calls that update all variables, one for each combination of dtypes."""
        known, numbers, missing = self._numbers
        if known is not hyper:
            numbers = scalars(hyper, self._multipliers)
            missing = tuple([x is None for x in (*numbers[0], *numbers[1:])])
            self._numbers = hyper, numbers, missing
        has_threads = uses_threads(self._largest)
        variant = has_threads, factors is None, missing
        is_compiled = variant in self._compiled
        jobs: list[Job] = []
        for likes, size, tasks, pieces in self.division.batches:
            arguments = (tasks, pieces, self._addresses, gradients, *likes, *numbers, factors)
            is_parallel = has_threads and size >= PARALLEL_FROM
            kernel = list_kernels.sweep_list_parallel if is_parallel else list_kernels.sweep_list
            if not is_compiled:
                compile_for(kernel, arguments, (*[a if a is None else a.dtype for a in likes], *variant))
            jobs.append((in_turn, (kernel, *arguments)) if is_parallel else (kernel, arguments))
        self._compiled.add(variant)
        return jobs


def list_plan_of(parameters: Sequence[Updatable], plans: Sequence[Plan]) -> ListPlan:
    """Return the plan of a list, which is kept for its first parameter."""
    first = parameters[0]
    kept: ListPlan | None = first.plans.get(id(first.key))
    if kept is None or not kept.is_of(plans):
        kept = ListPlan(parameters, plans)
        first.plans.keep(id(first.key), kept)
    return kept


def scalars(hyper: Hyperparameters, multipliers: Sequence[Multipliers] | None) -> tuple[Any, ...]:
    """Return the numbers of the formula, the limit of values, and the numbers of variables where they differ."""
    numbers = tuple(hyper.numbers_of()), hyper.clipvalue
    if multipliers is None:
        return *numbers, None
    rows = [hyper.numbers_of(each)[:MULTIPLIED] for each in multipliers]
    return *numbers, np.array([[x or 0.0 for x in row] for row in rows])


def squared_norms(division: Division, gradients: Array, limit: float | None, scale: float = 1.0) -> Array:
    """Return the sum of ``|scale * g|**2`` of the gradients at these addresses, after clipping by value."""
    sums, other = np.empty(division.blocks[-1]), None if scale == 1.0 else scale
    kernels = list_kernels.square_list, list_kernels.square_list_parallel
    for likes, size, tasks, pieces in division.batches:
        run(*kernels, size, tasks, pieces, gradients, likes[0], limit, other, sums)
    return list_kernels.add_blocks(sums, division.blocks)  # type: ignore[no-any-return]


def first_nonfinite(division: Division, gradients: Array) -> int | None:
    """Return the position of the first of the gradients at these addresses that is not finite."""
    count = len(division.blocks) - 1
    found = np.array([count])
    for batch in division.batches:
        kernels = list_kernels.find_in_list, list_kernels.find_in_list_parallel
        run(*kernels, batch.size, batch.tasks, batch.pieces, gradients, batch.likes[0], found)
    return int(found[0]) if found[0] < count else None
