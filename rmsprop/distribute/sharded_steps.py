"""Steps with sharded state: each rank adds up and updates its share, and all exchange what has changed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.distribute.halves import rounded
from rmsprop.distribute.reduction import Reduction, flattened, summed_in
from rmsprop.distribute.sharding import Share, exchange_rows, rows_of, share_of
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
    reduction: Reduction, group: Group, hyper: Hyperparameters, is_summed: bool, journals: list[Journal]
) -> Callable[[], None]:
    """Update this rank's share of variables and slots; return what writes the other ranks' shares.

    Parameters
    ----------
    reduction : Reduction
    group : Group
        Of whole parameters, with gradients that, with `is_summed`, are to be added up over the ranks.
    hyper : Hyperparameters
    is_summed : bool
    journals : list of Journal
        To which those are added that keep what has been updated.
    """
    shares = [share_of(p, reduction.link) for p in group.parameters]
    gradients = list(group.gradients)
    if is_summed:
        _sum(reduction, group.parameters, gradients)
    else:
        for k, (gradient, share) in enumerate(zip(gradients, shares, strict=True)):
            if not isinstance(gradient, IndexedSlices):
                gradients[k] = flattened(gradient)[share.start : share.stop]
    parts = [part for k, (g, s) in enumerate(zip(gradients, shares, strict=True)) for part in _parts(k, g, s)]
    for gradient, share in zip(gradients, shares, strict=True):
        for journal in _journals(gradient, share, hyper):
            journal.keep()
            journals.append(journal)
    _update(parts, group.factors, hyper)
    changes_all = hyper.variables_shrink or hyper.overwrites
    writes = _exchanged(reduction, group.parameters, gradients, changes_all)

    def write() -> None:
        for each in writes:
            each()

    return write


def _sum(reduction: Reduction, parameters: Sequence[Parameter], gradients: list[Any]) -> None:
    """Replace gradients by their sums over the ranks: dense ones by this rank's share, flat."""
    dense: dict[str, list[int]] = {}
    for k, gradient in enumerate(gradients):
        if isinstance(gradient, IndexedSlices):
            gradients[k] = rounded(reduction.gathered(gradient), parameters[k])
        else:
            dense.setdefault(summed_in(gradient.dtype), []).append(k)
    for dtype, positions in dense.items():
        shares = reduction.shares([gradients[k].size for k in positions], np.dtype(dtype))
        shares.sum([flattened(gradients[k]) for k in positions])
        for k, view in zip(positions, shares.views, strict=True):
            gradients[k] = rounded(view, parameters[k])


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
    own = None if factors is None else factors[[part.position for part in parts]]
    update([group._replace(factors=own)], hyper)


def _exchanged(
    reduction: Reduction, parameters: Sequence[Parameter], gradients: Sequence[Any], changes_all: bool
) -> list[Any]:
    """Send this rank's share of what has changed, receive the others'; return functions that write these."""
    writes: list[Any] = []
    dense: dict[Any, list[Any]] = {}
    for parameter, gradient in zip(parameters, gradients, strict=True):
        array = parameter.variable.array
        if not isinstance(gradient, IndexedSlices) or changes_all:
            dense.setdefault(array.dtype, []).append(array.reshape(-1))
        elif array.size:
            writes.append(exchange_rows(reduction.link, parameter, np.unique(gradient.indices)))
    for dtype, arrays in dense.items():
        shares = reduction.shares([array.size for array in arrays], dtype)
        shares.exchange(arrays)
        writes.append(lambda shares=shares, arrays=arrays: shares.commit(arrays))
    return writes
