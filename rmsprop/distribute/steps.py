"""A step of an optimizer with replicas: agreed on by all ranks before it changes anything."""

import signal
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import namespace, on_device
from rmsprop.arrays.windows import Windows
from rmsprop.backends import SPARSE, Gradient, values_of
from rmsprop.distribute.halves import rounded, unrounded
from rmsprop.distribute.ranks import Ranks
from rmsprop.distribute.reduction import Reduction
from rmsprop.distribute.sharded_steps import update_shares
from rmsprop.distribute.sharding import check_shardable
from rmsprop.distribute.undo import undoing, uninterrupted
from rmsprop.formula import NEUTRAL, Hyperparameters, Multipliers
from rmsprop.settings.settings import Settings
from rmsprop.state.parameters import Parameter
from rmsprop.step import slots
from rmsprop.step.groups import Group, by_backend, factored, prepared, update
from rmsprop.step.journal import Journal
from rmsprop.step.nonfinite import first_of_groups
from rmsprop.step.take import Plan, checked, leave_out, planned, transformed
from rmsprop.variables.observers import tapes, tell_tapes
from rmsprop.variables.variable import Variable

Prepared = tuple[Callable[[], object], tuple[int, Any] | None]
"""What takes a step, and the position and variable of the gradient that forbids it, if there is one."""


class Step(NamedTuple):
    """A step that this rank can take, and what it is taken with."""

    ranks: Ranks
    reduction: Reduction
    settings: Settings
    plan: Plan
    doing: str
    """How messages call it."""
    is_sharded: bool
    """Whether each rank updates its share, and all exchange what has changed."""
    is_summed: bool
    """Whether the gradients are to be added up over the ranks."""

    @property
    def last(self) -> str:
        """How messages call the moment before the step is taken."""
        return f"{self.doing}, before it is taken"


def take(ranks: Ranks, is_sharded: bool, settings: Settings, given: Any, aggregate: bool) -> Variable | None:
    """Take one step together with all other ranks; see `rmsprop.RMSprop.apply_gradients`."""
    iterations = settings.state.iterations
    doing = f"step {int(iterations.array)}"
    with ranks.announcing(doing):
        step = _planned(ranks, is_sharded, settings, given, aggregate, doing)
    if step is None:
        ranks.agree(doing, ("0 variables",))
        return None
    plan = step.plan
    ranks.agree(doing, (*_terms(plan.parameters, plan.gradients), _options(plan.hyper, step.is_summed)))
    with ranks.certain(doing), undoing() as journals:
        _spread(step)
        finish, bad = _prepared(step, journals)
        with uninterrupted() as interrupts:
            ranks.agree(step.last, ())  # a rank may have failed since, or ended
            if bad is None:
                finish()
                iterations.take()
    try:
        if bad is not None:
            leave_out(settings, *bad)
        elif tapes:
            tell_tapes(*plan.variables)
    finally:
        for number in interrupts:
            signal.raise_signal(number)
    return iterations


def _spread(step: Step) -> None:
    """Give parameters, with their slots, that the ranks have not yet seen the values of rank 0."""
    names = () if step.is_sharded else step.settings.slots
    for parameter in step.plan.parameters:
        if not parameter.is_synced:
            for variable in (parameter.variable, *[parameter.slots[name] for name in names]):
                step.ranks.spread(variable)
            parameter.is_synced = True


def _planned(
    ranks: Ranks, is_sharded: bool, settings: Settings, given: Any, aggregate: bool, doing: str
) -> Step | None:
    """Check everything that a rank can check alone, and create missing slots; None if there are no variables."""
    aggregator = settings.values["gradient_aggregator"] if aggregate else None
    plan = planned(settings, given, () if aggregator is None else (aggregator,))
    if plan is None:
        return None
    if plan.will_be_captured:
        raise RuntimeError("A step with replicas can't be captured in a graph.")
    if is_sharded:
        _check_shardable(ranks, plan.parameters, plan.gradients)
    is_summed = aggregate and aggregator is None
    if is_summed:
        each = zip(plan.given, plan.parameters, plan.gradients, strict=True)
        plan = plan._replace(gradients=[unrounded(*one) for one in each])
    slots.complete(settings, plan.parameters)
    return Step(ranks, cast("Reduction", ranks.reduction), settings, plan, doing, is_sharded, is_summed)


def _check_shardable(ranks: Ranks, parameters: Sequence[Parameter], grads: Sequence[Gradient]) -> None:
    """Raise an error for what can't be divided into shares."""
    for position, (parameter, gradient) in enumerate(zip(parameters, grads, strict=True)):
        check_shardable(cast("Reduction", ranks.reduction), parameter)
        if isinstance(gradient, Windows):
            raise TypeError(
                f"Gradient of variable {position} {parameter}: with shard_state=True it can't be Windows; "
                f"expected a dense one, or for x.reshape(-1) the IndexedSlices of windows.indexed(x.shape)."
            )
        if isinstance(gradient, IndexedSlices) and not isinstance(parameter.variable.array, np.ndarray):
            raise TypeError(
                f"Gradient of variable {position} {parameter}: with shard_state=True that of a CuPy array can't "
                f"be sparse; expected a dense one, or a strategy with shard_state=False."
            )


def _terms(parameters: Sequence[Parameter], grads: Sequence[Gradient]) -> tuple[str, ...]:
    """Return what the ranks must have in common of a list."""
    each = zip(parameters, grads, strict=True)
    return f"{len(parameters)} variables", *[_term(k, *_facts(p, g)) for k, (p, g) in enumerate(each)]


def _facts(parameter: Parameter, gradient: Gradient) -> tuple[str, str, str, Multipliers, bool]:
    """Return how messages call a parameter, its library, gradient and multipliers, and if all know it."""
    values = values_of(gradient)
    dtype = dtypes.name_of(values.dtype)
    library = type(parameter.variable.array).__module__
    kind = f"{'sparse' if isinstance(gradient, IndexedSlices) else 'dense'} {dtype}"
    if isinstance(gradient, Windows):
        kind = f"windowed {dtype} {'x'.join(map(str, values.shape[1:]))}"
    return str(parameter), library, kind, parameter.multipliers, parameter.is_synced


@lru_cache(10_000)
def _term(
    position: int, described: str, library: str, kind: str, multipliers: Multipliers, is_synced: bool
) -> str:
    seen = "" if is_synced else ", not seen before"
    multiplied = "" if multipliers == NEUTRAL else f" and {multipliers}"
    return f"variable {position} {described} of {library}, with a {kind} gradient{multiplied}{seen}"


@lru_cache(100)
def _options(hyper: Hyperparameters, is_summed: bool) -> str:
    return f"{hyper}, gradients {'' if is_summed else 'not '}to be summed"


def _prepared(step: Step, journals: list[Journal]) -> Prepared:
    """Do all of a step that may fail; return what is left when all ranks have come so far, or what forbids it.

    What changes before that is kept in the journals.
    """
    ranks, plan, hyper = step.ranks, step.plan, step.plan.hyper
    parameters, grads = plan.parameters, plan.gradients
    if step.is_summed and ranks.size > 1:
        if step.is_sharded and not _needs_all(step):
            return update_shares(step.reduction, by_backend(parameters, grads), hyper, True, journals), None
        grads = step.reduction.sums(grads)
    with ranks.announcing(step.last):
        grads = [rounded(total, p) for total, p in zip(grads, parameters, strict=True)]
    if step.settings.values["gradient_transformers"]:
        parameters, grads = _transformed(step, grads)
    with ranks.announcing(step.last):
        decided = hyper._replace(nonfinite="propagate")
        groups = factored(by_backend(parameters, grads), decided) if parameters else []
    if hyper.nonfinite != "propagate":
        position = _first_nonfinite(step, groups)
        if position is not None:
            return _nothing, (position, parameters[position].key)
    if step.is_sharded and groups:
        return update_shares(step.reduction, groups, decided, False, journals), None
    with ranks.announcing(step.last):
        return _constrained(groups, decided, journals) or prepared(groups, decided), None


def _needs_all(step: Step) -> bool:
    """Tell whether whole sums are needed, rather than a share of them on each rank."""
    hyper = step.plan.hyper
    return (
        bool(step.settings.values["gradient_transformers"])
        or hyper.clips_by_norm
        or hyper.nonfinite != "propagate"
        or hyper.loss_scale != 1.0
        or any([p.variable.constraint is not None for p in step.plan.parameters])
    )


def _nothing() -> None:
    """Change nothing."""


def _first_nonfinite(step: Step, groups: list[Group]) -> int | None:
    """Return the position of the first gradient that is not finite, on which all ranks agree."""
    with step.ranks.announcing(step.last):
        position = first_of_groups(groups, step.plan.hyper)
    terms = (f"its first gradient that is not finite at {position}",)
    step.ranks.agree(f"{step.doing}, looking for NaN", terms)
    return position


def _constrained(
    groups: list[Group], hyper: Hyperparameters, journals: list[Journal]
) -> Callable[[], object] | None:
    """Update variables now if something follows that may fail; return that nothing is left to do."""
    parameters = [p for group in groups for p in group.parameters]
    if not hyper.overwrites and all([p.variable.constraint is None for p in parameters]):
        return None
    journal = Journal(parameters)
    journal.keep()
    journals.append(journal)
    update(groups, hyper)
    return _nothing


def _transformed(step: Step, grads: list[Gradient]) -> tuple[list[Parameter], list[Gradient]]:
    """Apply the caller's transformations to copies, since buckets are used again."""
    settings = step.settings
    with step.ranks.announcing(step.doing):
        pairs = list(zip([_copied(g) for g in grads], step.plan.variables, strict=True))
        pairs = transformed(settings, pairs, settings.values["gradient_transformers"])
        parameters, grads = checked(settings, pairs)
        if step.is_sharded:
            _check_shardable(step.ranks, parameters, grads)
    step.ranks.agree(f"{step.doing}, after the transformers", _terms(parameters, grads))
    return parameters, grads


def _copied(gradient: Gradient) -> Gradient:
    if isinstance(gradient, SPARSE):
        return gradient
    with on_device(gradient):
        return namespace(gradient).asarray(gradient, copy=True)
