"""A step of an optimizer with replicas: agreed on by all ranks before it changes anything."""

import signal
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from rmsprop import dtypes, gradients
from rmsprop.arrays import namespace, on_device
from rmsprop.backends import Gradient
from rmsprop.distribute.halves import rounded, unrounded
from rmsprop.distribute.sharded_steps import update_shares
from rmsprop.distribute.sharding import check_shardable
from rmsprop.distribute.undo import undoing, uninterrupted
from rmsprop.formula import Hyperparameters
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.journal import Journal
from rmsprop.nonfinite import first_of_groups
from rmsprop.parameters import Parameter
from rmsprop.recording import tapes, tell_tapes
from rmsprop.step import Group, by_backend, clipped, is_captured, prepared, update
from rmsprop.variable import Variable

if TYPE_CHECKING:
    from rmsprop.distribute.strategy import Strategy
    from rmsprop.optimizer import RMSprop


class Plan(NamedTuple):
    """A step that this rank can take."""

    variables: list[Any]
    """As the caller passes them."""
    parameters: list[Parameter]
    gradients: list[Gradient]
    hyper: Hyperparameters
    is_summed: bool
    """Whether the gradients are to be added up over the ranks."""


Prepared = tuple[Callable[[], object], tuple[int, Any] | None]
"""What takes a step, and the position and variable of the gradient that forbids it, if there is one."""


def take(optimizer: "RMSprop", given: Any, aggregate: bool) -> Variable | None:
    """Take one step together with all other ranks; see `rmsprop.RMSprop.apply_gradients`."""
    strategy: Strategy = optimizer._strategy
    doing = f"step {int(optimizer._iterations.array)}"
    with strategy._announcing(doing):
        plan = _planned(optimizer, given, aggregate)
    if plan is None:
        strategy._agree(doing, ("0 variables",))
        return None
    terms = *_terms(plan.parameters, plan.gradients), _options(plan.hyper, plan.is_summed)
    strategy._agree(doing, terms)
    with strategy._certain(doing), undoing() as journals:
        _spread(strategy, plan.parameters, optimizer._needed_slots())
        finish, bad = _prepared(optimizer, plan, doing, journals)
        with uninterrupted() as interrupts:
            strategy._agree(_last(doing), ())  # a rank may have failed since, or ended
            if bad is None:
                finish()
                optimizer._iterations.take()
    try:
        if bad is not None:
            optimizer._leave_out(*bad)
        elif tapes:
            tell_tapes(*plan.variables)
    finally:
        for number in interrupts:
            signal.raise_signal(number)
    return optimizer._iterations


def _spread(strategy: "Strategy", parameters: Sequence[Parameter], needed: Sequence[str]) -> None:
    """Give parameters, with their slots, that the strategy has not yet seen the values of rank 0."""
    names = () if strategy.shard_state else needed
    for parameter in parameters:
        if not parameter.is_synced:
            for variable in (parameter.variable, *[parameter.slots[name] for name in names]):
                strategy._spread(variable)
            parameter.is_synced = True


def _planned(optimizer: "RMSprop", given: Any, aggregate: bool) -> Plan | None:
    """Check everything that a rank can check alone, and create missing slots; None if there are no variables."""
    pairs = gradients.pairs(given)
    aggregator = optimizer.gradient_aggregator if aggregate else None
    if aggregator is not None and pairs:
        optimizer._checked(pairs)
        pairs = gradients.pairs(aggregator(pairs))
    if not pairs:
        return None
    parameters, grads = optimizer._checked(pairs)
    hyper = optimizer._read(int(optimizer._iterations.array))
    if is_captured(by_backend(parameters, grads)):
        raise RuntimeError("A step with replicas can't be captured in a graph.")
    is_summed = aggregate and aggregator is None
    if is_summed:
        grads = [unrounded(pair[0], p, g) for pair, p, g in zip(pairs, parameters, grads, strict=True)]
    if optimizer._strategy.shard_state:
        for parameter in parameters:
            check_shardable(parameter)
    optimizer._prepare(parameters)
    return Plan([variable for _, variable in pairs], parameters, grads, hyper, is_summed)


def _terms(parameters: Sequence[Parameter], grads: Sequence[Gradient]) -> tuple[str, ...]:
    """Return what the ranks must have in common of a list."""
    each = zip(parameters, grads, strict=True)
    return f"{len(parameters)} variables", *[_term(k, *_facts(p, g)) for k, (p, g) in enumerate(each)]


def _facts(parameter: Parameter, gradient: Gradient) -> tuple[str, str, str, bool]:
    """Return how messages call a parameter, its library, what gradient it gets, and if all know it."""
    is_sparse = isinstance(gradient, IndexedSlices)
    dtype = dtypes.name_of(gradient.values.dtype if isinstance(gradient, IndexedSlices) else gradient.dtype)
    library = type(parameter.variable.array).__module__
    return str(parameter), library, f"{'sparse' if is_sparse else 'dense'} {dtype}", parameter.is_synced


@lru_cache(10_000)
def _term(position: int, described: str, library: str, kind: str, is_synced: bool) -> str:
    seen = "" if is_synced else ", not seen before"
    return f"variable {position} {described} of {library}, with a {kind} gradient{seen}"


@lru_cache(100)
def _options(hyper: Hyperparameters, is_summed: bool) -> str:
    return f"{hyper}, gradients {'' if is_summed else 'not '}to be summed"


def _last(doing: str) -> str:
    """Return how messages call the moment before a step is taken."""
    return f"{doing}, before it is taken"


def _prepared(optimizer: "RMSprop", plan: Plan, doing: str, journals: list[Journal]) -> Prepared:
    """Do all of a step that may fail; return what is left when all ranks have come so far, or what forbids it.

    What changes before that is kept in the journals.
    """
    strategy, parameters, grads, hyper = optimizer._strategy, plan.parameters, plan.gradients, plan.hyper
    if plan.is_summed and strategy.num_replicas_in_sync > 1:
        needs_all = (
            bool(optimizer._gradient_transformers)
            or hyper.clips_by_norm
            or hyper.nonfinite != "propagate"
            or hyper.loss_scale != 1.0
            or any([p.variable.constraint is not None for p in parameters])
        )
        if not needs_all and strategy.shard_state:
            group = by_backend(parameters, grads)[0]
            return update_shares(strategy._reduction, group, hyper, True, journals), None
        grads = strategy._reduction.sums(grads)
    with strategy._announcing(_last(doing)):
        grads = [rounded(total, p) for total, p in zip(grads, parameters, strict=True)]
    if optimizer._gradient_transformers:
        parameters, grads = _transformed(optimizer, plan.variables, grads, doing)
    with strategy._announcing(_last(doing)):
        decided = hyper._replace(nonfinite="propagate")
        groups = clipped(by_backend(parameters, grads), decided) if parameters else []
    if hyper.nonfinite != "propagate":
        position = _first_nonfinite(strategy, groups, hyper, doing)
        if position is not None:
            return _nothing, (position, parameters[position].key)
    if strategy.shard_state and groups:
        return update_shares(strategy._reduction, groups[0], decided, False, journals), None
    with strategy._announcing(_last(doing)):
        return _constrained(groups, decided, journals) or prepared(groups, decided), None


def _nothing() -> None:
    """Change nothing."""


def _first_nonfinite(strategy: "Strategy", groups: list[Group], hyper: Hyperparameters, doing: str) -> int | None:
    """Return the position of the first gradient that is not finite, on which all ranks agree."""
    with strategy._announcing(_last(doing)):
        position = first_of_groups(groups, hyper)
    strategy._agree(f"{doing}, looking for NaN", (f"its first gradient that is not finite at {position}",))
    return position


def _constrained(
    groups: list[Group], hyper: Hyperparameters, journals: list[Journal]
) -> Callable[[], object] | None:
    """Update variables now if they have constraints, which may fail; return that nothing is left to do."""
    parameters = [p for group in groups for p in group.parameters]
    if all([p.variable.constraint is None for p in parameters]):
        return None
    journal = Journal(parameters)
    journal.keep()
    journals.append(journal)
    update(groups, hyper)
    return _nothing


def _transformed(
    optimizer: "RMSprop", variables: list[Any], grads: list[Gradient], doing: str
) -> tuple[list[Parameter], list[Gradient]]:
    """Apply the caller's transformations to copies, since buckets are used again."""
    strategy = optimizer._strategy
    with strategy._announcing(doing):
        pairs = list(zip([_copied(g) for g in grads], variables, strict=True))
        pairs = optimizer._transformed(pairs, aggregate=False)
        parameters, grads = optimizer._checked(pairs)
    strategy._agree(f"{doing}, after the transformers", _terms(parameters, grads))
    return parameters, grads


def _copied(gradient: Gradient) -> Gradient:
    if isinstance(gradient, IndexedSlices):
        return gradient
    with on_device(gradient):
        return namespace(gradient).asarray(gradient, copy=True)
