"""Steps with sharded state: each rank adds up and updates its share, and all exchange what has changed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import is_array
from rmsprop.distribute.halves import rounded
from rmsprop.distribute.reduction import Reduction, stretch, summed_in
from rmsprop.distribute.sharding import Share, exchange_rows, refresh, rows_of, share_of
from rmsprop.formula import Hyperparameters
from rmsprop.state.parameters import Parameter
from rmsprop.step.groups import Group, by_backend, update
from rmsprop.step.journal import Journal


class Part(NamedTuple):
    """A part of a parameter that this rank updates, and its gradient."""

    position: int
    parameter: Parameter
    gradient: Any


def update_shares(
    reduction: Reduction, groups: Sequence[Group], hyper: Hyperparameters, is_summed: bool, journals: list[Journal]
) -> Callable[[], None]:
    """Update this rank's share of variables and slots; return what writes the other ranks' shares.

    Parameters
    ----------
    reduction : Reduction
    groups : sequence of Group
        Of whole parameters, with gradients that, with `is_summed`, are to be added up over the ranks.
    hyper : Hyperparameters
    is_summed : bool
    journals : list of Journal
        To which those are added that keep what has been updated.
    """
    writes = [write for group in groups for write in _updated(reduction, group, hyper, is_summed, journals)]

    def write_all() -> None:
        for write in writes:
            write()

    return write_all


def _updated(
    reduction: Reduction, group: Group, hyper: Hyperparameters, is_summed: bool, journals: list[Journal]
) -> list[Callable[[], None]]:
    """Update this rank's share of a group; return what writes the other ranks' shares."""
    shares = [share_of(p, reduction.link) for p in group.parameters]
    gradients = list(group.gradients)
    if is_summed:
        _sum(reduction, group.parameters, gradients)
    else:
        for k, (gradient, share) in enumerate(zip(gradients, shares, strict=True)):
            if not isinstance(gradient, IndexedSlices):
                gradients[k] = stretch(gradient, share.start, share.stop)
    parts = [part for k, (g, s) in enumerate(zip(gradients, shares, strict=True)) for part in _parts(k, g, s)]
    for parameter, gradient, share in zip(group.parameters, gradients, shares, strict=True):
        refresh(share, parameter)
        for journal in _journals(gradient, share, hyper):
            journal.keep()
            journals.append(journal)
    _update(parts, group.factors, hyper)
    return _exchanged(reduction, group.parameters, shares, gradients, hyper)


def _sum(reduction: Reduction, parameters: Sequence[Parameter], gradients: list[Any]) -> None:
    """Replace gradients by their sums over the ranks: dense ones by this rank's share, flat."""
    dense: dict[str, list[int]] = {}
    for k, gradient in enumerate(gradients):
        if isinstance(gradient, IndexedSlices):
            gradients[k] = rounded(reduction.gathered(gradient), parameters[k])
        else:
            dense.setdefault(summed_in(gradient.dtype), []).append(k)
    for dtype, positions in dense.items():
        sums = reduction.sums_of_shares(dtype, [gradients[k] for k in positions])
        for k, total in zip(positions, sums, strict=True):
            gradients[k] = rounded(total, parameters[k])


def _parts(position: int, gradient: Any, share: Share) -> list[Part]:
    if not isinstance(gradient, IndexedSlices):
        return [Part(position, share.whole, gradient)]
    return [Part(position, p, rows_of(gradient, block, p.shape)) for block, p in share.blocks]


def _journals(gradient: Any, share: Share, hyper: Hyperparameters) -> list[Journal]:
    """Return what keeps all that a gradient is going to change in a share."""
    if not isinstance(gradient, IndexedSlices) or hyper.changes_all_rows:
        return [share.journal]
    return [Journal([p], np.unique(rows_of(gradient, block, p.shape).indices)) for block, p in share.blocks]


def _update(parts: Sequence[Part], factors: Any, hyper: Hyperparameters) -> None:
    if not parts:
        return
    (group,) = by_backend([part.parameter for part in parts], [part.gradient for part in parts])
    if group.backend.makes_factors and factors is not None and not is_array(factors):
        own = factors.of_shares(group.parameters, hyper)  # one for each parameter, since none is sparse
    else:
        own = None if factors is None else factors[[part.position for part in parts]]
    update([group._replace(factors=own)], hyper)


def _exchanged(
    reduction: Reduction,
    parameters: Sequence[Parameter],
    shares: Sequence[Share],
    gradients: Sequence[Any],
    hyper: Hyperparameters,
) -> list[Callable[[], None]]:
    """Send this rank's share of what has changed, receive the others'; return functions that write these."""
    changes_all = hyper.variables_shrink or hyper.overwrites
    writes: list[Callable[[], None]] = []
    dense: dict[Any, list[int]] = {}
    for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        array = parameter.variable.array
        if not isinstance(gradient, IndexedSlices) or changes_all:
            dense.setdefault(array.dtype, []).append(k)
        elif array.size:
            writes.append(exchange_rows(reduction.link, parameter, np.unique(gradient.indices)))
    for positions in dense.values():
        arrays = [parameters[k].variable.array for k in positions]
        writes.append(reduction.exchanged(arrays, [shares[k].whole.variable.array for k in positions]))
    return writes
