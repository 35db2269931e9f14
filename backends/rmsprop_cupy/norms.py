"""Norms of gradients and the factors that clip them, on the device and always with the same bits.

Blocks of threads sum squares of stretches of `STRETCH` elements, in double precision and a fixed order. One more
block adds these sums up for each gradient, in order, and makes factors of them. That block is on the device of the
first gradient, to which the sums of other devices are copied.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.backends import Gradient, Updatable, values_of
from rmsprop.formula import Hyperparameters
from rmsprop.norms import RANGES, limits
from rmsprop_cupy import kernels
from rmsprop_cupy.counters import Tally
from rmsprop_cupy.kept import Kept, kept_for_step
from rmsprop_cupy.launches import paired
from rmsprop_cupy.streams import copied, hold

STRETCH = 4_096
"""Elements that one block of threads sums up."""


JUDGED = Hyperparameters(0.0, 0.0, None, 0.0, False, False, None, None, None, True, False, None, nonfinite="skip")
"""Of these, only that gradients are to be looked at matters."""


class Kind(NamedTuple):
    """Device, dtype and size of a gradient: all of it that a plan depends on."""

    device: int
    dtype: str
    size: int


class Part(NamedTuple):
    """The stretches of all gradients of one device and dtype.

    A row of the table is the number of elements, the index of the first, and the position of the gradient.
    """

    device: Any
    dtype: str
    table: Array
    sums: Array


class Call(NamedTuple):
    """A kernel and what it is called with."""

    kernel: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]


class Plan:
    """The places of sums, norms and factors, for gradients of given kinds.

    Attributes
    ----------
    kinds : list of Kind
    parts : list of (Part, cupy.ndarray)
        Each with its place in the sums of all.
    starts : cupy.ndarray
        Where the sums of each gradient start; the last one is the end.
    order : cupy.ndarray
        The position of the gradient that each of `starts` belongs to.
    sums : cupy.ndarray of float64, shape (n, 2)
        Beside a sum that is beyond the range that is used of its dtype there is another, of scaled numbers.
    squares, norms : cupy.ndarray of float64
        All norms are NaN if that of all gradients is needed and not finite.
    skipped : cupy.ndarray of uint64, shape (1,)
        How many steps have been left out so far, where that tells the number of a step.
    factors : dict of cupy.ndarray
        The same factors by their dtype, float64 and float32, on the device of the first gradient: two numbers for
        each gradient, one after the other.
    """

    def __init__(self, kinds: list[Kind]) -> None:
        self.kinds = kinds
        members: dict[tuple[int, str], list[int]] = {}
        for i, kind in enumerate(kinds):
            members.setdefault((kind.device, kind.dtype), []).append(i)
        rows = {key: [_stretches(i, kinds[i].size) for i in ids] for key, ids in members.items()}
        counts = [len(stretches) for part in rows.values() for stretches in part]
        starts = np.cumsum([0, *counts], dtype=np.int64)
        self.starts = cupy.asarray(starts)
        self.order = cupy.asarray(np.concatenate(list(members.values())))
        self.sums = cupy.empty((int(starts[-1]), 2))
        self.skipped = cupy.zeros(1, cupy.uint64)
        self.squares, self.norms = cupy.empty(len(kinds)), cupy.empty(len(kinds))
        self.factors = {name: cupy.empty(2 * len(kinds), name) for name in ("float64", "float32")}
        self.parts, stop = [], 0
        for (device, dtype), stretches in rows.items():
            table = np.concatenate(stretches)
            start, stop = stop, stop + len(table)
            place = self.sums[start:stop]
            self.parts.append((self._part(device, dtype, table, place), place))

    def _part(self, device: int, dtype: str, table: Host, place: Array) -> Part:
        with cupy.cuda.Device(device) as own:
            sums = place if device == self.sums.device.id else cupy.empty_like(place)
            return Part(own, dtype, cupy.asarray(table), sums)


def _stretches(position: int, size: int) -> Host:
    starts = np.arange(0, size, STRETCH, dtype=np.uint64)
    counts = np.minimum(np.uint64(STRETCH), np.uint64(size) - starts)
    return np.stack([counts, starts, np.full_like(starts, position)], axis=1)


class Clipping(NamedTuple):
    """The factors of a step, and what else this uses."""

    kept: Kept
    plan: Plan

    @property
    def magnitudes(self) -> Array:
        """The norms; see `rmsprop.norms.Clipping`."""
        return self.plan.norms

    def of_shares(self, parameters: Sequence[Updatable], hyper: Hyperparameters) -> "Clipping":
        """Return the factors for shares of parameters; see `rmsprop.backends.Factors`."""
        return self._replace(kept=kept_for_step(parameters, hyper))


def factors(parameters: Sequence[Updatable], gradients: Sequence[Gradient], hyper: Hyperparameters) -> Clipping:
    """Compute the factors to multiply gradients by."""
    kept, plans = kept_for_step(parameters, hyper), parameters[0].plans
    if hyper.nonfinite == "propagate":
        return Clipping(kept, measured(kept, gradients, hyper))
    plans.tally = tally = cast("Tally", plans.tally or Tally())
    return Clipping(kept, measured(kept, gradients, hyper, tally))


def first_nonfinite(gradients: Sequence[Gradient]) -> int | None:
    """Return the position of the first gradient with a NaN or an infinity, or None; this waits for the device."""
    norms = measured(Kept(len(gradients)), gradients, JUDGED).norms
    with norms.device:
        are_finite = np.isfinite(norms.get())
    return None if are_finite.all() else int(are_finite.argmin())


def squared_norms(gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
    """Return the sum of ``|scale * g|**2`` of each gradient after clipping by value, in double precision."""
    return measured(Kept(len(gradients)), gradients, hyper, scale=scale).squares


def measured(
    kept: Kept,
    gradients: Sequence[Gradient],
    hyper: Hyperparameters,
    tally: Tally | None = None,
    scale: float = 1.0,
) -> Plan:
    """Compute norms and factors; return the plan that holds them.

    With a tally, a gradient that is not finite makes all factors NaN, and is counted there.
    """
    arrays = [_flat(gradient, hyper) for gradient in gradients]
    kept.keep(arrays)
    kinds = [Kind(a.data.device_id, a.dtype.name, a.size) for a in arrays]
    with arrays[0].device:
        with kept.setup():
            if kept.norms is None or kept.norms.kinds != kinds:
                hold(kept.norms)
                kept.norms = Plan(kinds)
        plan: Plan = kept.norms
        for part, place in plan.parts:
            _sum(part, arrays, hyper, kept, scale)
            if part.sums is not place:
                copied(part.sums, place)
        kernel, *given = factoring(plan, hyper, tally)
        kernel(*given)
        kept.used()
        if tally is not None and kept.captured is None:
            tally.record()
    return plan


def calls(plan: Plan, addresses: Array, hyper: Hyperparameters, tally: Tally | None) -> list[Call]:
    """Return all calls for gradients of one device without gaps, at these addresses; compile what is missing."""
    made = [summing(part, addresses, hyper) for part, _ in plan.parts if len(part.table)]
    return [call._replace(kernel=call.kernel.kernel) for call in (*made, factoring(plan, hyper, tally))]


def factoring(plan: Plan, hyper: Hyperparameters, tally: Tally | None) -> Call:
    """Return the call that makes factors of the sums, on the device of the first gradient."""
    limits = [np.float64(-1.0 if limit is None else limit) for limit in (hyper.clipnorm, hyper.global_clipnorm)]
    numbers = *limits, np.float64(hyper.loss_scale), _least(hyper)
    results = plan.squares, plan.norms, *plan.factors.values()
    left_out = np.uint64(0) if tally is None else tally.array
    counts = tally is not None and hyper.state_dtype is not None
    skipped = plan.skipped if counts else np.uint64(0)
    arguments = plan.sums, plan.starts, plan.order, len(plan.kinds), *numbers, *results, left_out, skipped
    return Call(kernels.factor_kernel(), (1,), (kernels.FACTOR_THREADS,), arguments)


def _flat(gradient: Gradient, hyper: Hyperparameters) -> Array:
    """Return the elements of a gradient, without gaps."""
    given = paired(values_of(gradient), hyper)
    with given.device:
        return cupy.ascontiguousarray(given)


def _least(hyper: Hyperparameters) -> Any:
    """Return below which sum of squares gradients are to be scaled; 0 if the limits are so high that none is."""
    limit, least = min([math.inf, *limits(hyper)]), RANGES["float64"].least
    return np.float64(least**2 if limit < least else 0.0)


def _terms(hyper: Hyperparameters, scale: float) -> tuple[str, ...]:
    """Return what is to be summed; see `kernels.norm_kernel`."""
    if scale != 1.0:
        return (f"square(times((wide)gradient, {scale!r}))",)
    has_norms = hyper.nonfinite == "propagate" or hyper.clips_by_norm
    is_enough = hyper.nonfinite == "propagate" or (has_norms and hyper.clipvalue is None)
    return (*["square((wide)gradient)"] * has_norms, *["nothing(given)"] * (not is_enough))


def _sum(part: Part, arrays: Sequence[Array], hyper: Hyperparameters, kept: Kept, scale: float) -> None:
    """Let the device sum the squares of each stretch."""
    if not len(part.table):
        return
    with part.device:
        with kept.setup():
            addresses = kept.addresses(arrays)
        kernel, *given = summing(part, addresses, hyper, scale)
        kernel(*given)
        kept.used()


@np.errstate(all="ignore")  # of limits that are rounded to single precision
def summing(part: Part, addresses: Array, hyper: Hyperparameters, scale: float = 1.0) -> Call:
    """Return the call that sums the squares of each stretch, of gradients at these addresses."""
    kernel = kernels.norm_kernel(part.dtype, hyper.clipvalue is not None, _terms(hyper, scale), kernels.OPTIONS)
    limit = kernels.REAL[part.dtype](hyper.clipvalue or 0.0)
    arguments = part.table, addresses, part.sums, limit, _least(hyper)
    return Call(kernel, (len(part.table),), (kernels.THREADS,), arguments)
