"""The formula of RMSprop: what a step computes, the numbers in it, and the slots that it remembers.

With a gradient ``g`` that has been clipped to a `limit` and multiplied by a `factor`, a step is::

    g        = g + weight_decay * variable              unless there is none, or it is decoupled
    rms      = rho * rms + one_minus_rho * |g|**2
    variance = rms                                      or, if centered,
    mg       = rho * mg + one_minus_rho * g
    variance = rms - |mg * mg_scale|**2
    step     = rate * g / (sqrt(variance + epsilon_inside) + epsilon_outside)
    momentum = mu * momentum + step                     or, without momentum, no such slot
    change   = outer_rate * momentum                    or, without momentum, of step,
                                                        or, with Nesterov's, of step + nesterov_mu * momentum
    change   = change + shrinkage * variable            if weight decay is decoupled
    variable = variable - change
    average  = ema * average + one_minus_ema * variable if variables are averaged

`stepped` is this for whole arrays of any library. Tests run it in extended precision, and compare. The compiled
kernels have the same lines, in these words: ``stepped`` in ``rmsprop_numba/kernels.py`` and ``formula`` in
``rmsprop_cupy/source.py``. All other options of `rmsprop.RMSprop` only choose the numbers, see
`Hyperparameters.numbers_of`.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Namespace

Kept = TypeVar("Kept")


class Needs(NamedTuple):
    """What decides on the slots that there are."""

    momentum: bool
    centered: bool
    average: bool = False
    """Whether variables are averaged."""
    accumulator: bool = False
    """Whether gradients of several calls make one step."""


class Slot(NamedTuple):
    """What an optimizer remembers of each element of a variable."""

    is_needed: Callable[[Needs], bool]
    averages_squares: bool = False
    """Whether it is an average of squares: never negative, and real even of complex numbers."""
    is_compact: bool = True
    """Whether it is kept in the optimizer's ``state_dtype``."""

    def dtype(self, variable: str, complex_as_real: bool) -> str:
        """Return the dtype of the slot of a variable, given the variable's.

        If real and imaginary part count as two reals, a complex average of squares holds that of the one and that
        of the other.
        """
        compute = dtypes.COMPUTE[variable]
        return dtypes.real(compute) if self.averages_squares and not complex_as_real else compute

    def start(self, initial_accumulator: float, dtype: str) -> complex:
        """Return what each element of a new slot of a dtype begins at, in both parts of a complex average."""
        both = 1 + 1j if dtypes.is_complex(dtype) else 1
        return initial_accumulator * both if self.averages_squares else 0.0

    def check(self, array: Any, what: str) -> None:
        """Raise ``ValueError`` if numbers for the slot, in an array of NumPy, are negative where none can be."""
        parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
        if self.averages_squares and any((part < 0).any() for part in parts):
            raise ValueError(f"{what} is an average of squares; given negative numbers.")


AVERAGE, ACCUMULATOR = "average", "accumulator"

SLOTS = {
    "rms": Slot(lambda needs: True, averages_squares=True),
    "momentum": Slot(lambda needs: needs.momentum),
    "mg": Slot(lambda needs: needs.centered),
    AVERAGE: Slot(lambda needs: needs.average, is_compact=False),
    ACCUMULATOR: Slot(lambda needs: needs.accumulator, is_compact=False),
}
"""The slots by name, in the order in which they are created. Kernels take all but the last, in this order."""


@cache
def needed_slots(*needs: bool) -> tuple[str, ...]:
    """Return the names of the slots that there are, in order, given `Needs` one by one."""
    return tuple([name for name, slot in SLOTS.items() if slot.is_needed(Needs(*needs))])


class Multipliers(NamedTuple):
    """What numbers of a step are multiplied by for one variable; see `rmsprop.RMSprop.group`."""

    learning_rate: float = 1.0
    weight_decay: float = 1.0


NEUTRAL = Multipliers()


class Numbers(NamedTuple):
    """The numbers of the formula, in the order in which kernels take them.

    Those that can be None are so where the formula lacks their term: kernels are compiled for that.
    """

    rate: float
    outer_rate: float | None
    weight_decay: float | None
    shrinkage: float | None
    nesterov_mu: float | None
    rho: float
    one_minus_rho: float
    mu: float
    """The momentum, where the slot is meant by that word; 0 if there is none."""
    epsilon_inside: float
    """What is added inside of the root; this or `epsilon_outside` is zero."""
    epsilon_outside: float
    mg_scale: float | None
    ema: float | None
    one_minus_ema: float | None


MULTIPLIED = 4
"""How many of the numbers, the first ones, differ between variables that have other multipliers."""

OPTIONAL = ("outer_rate", "weight_decay", "shrinkage", "nesterov_mu", "mg_scale", "ema", "one_minus_ema")
"""The numbers that can be None."""

TINY = 2.0**-126
"""The smallest normal number of single precision: GPUs may take smaller ones for zero."""


class Hyperparameters(NamedTuple):
    """All that a backend is told of one step: its numbers, and which variant of the formula it follows."""

    learning_rate: float
    rho: float
    momentum: float | None
    """None where there is no momentum, which is another formula than a momentum of 0."""
    epsilon: float
    epsilon_in_sqrt: bool
    centered: bool
    clipvalue: float | None
    clipnorm: float | None
    global_clipnorm: float | None
    lazy: bool
    complex_as_real: bool
    state_dtype: str | None = None
    """What slots are kept in, where they are not kept in full; see `rmsprop.backends.Backend`."""
    step: int = 0
    """How many steps were taken before; only given where something depends on it.

    For the way in which state is rounded, a device counts by itself those that it has left out of these.
    """
    nonfinite: str = "propagate"
    """What becomes of a step with gradients that are not finite; see `rmsprop.RMSprop`."""
    loss_scale: float = 1.0
    """What gradients are to be divided by, by their factors; the limits of clipping are times as high."""
    weight_decay: float | None = None
    """None where there is no weight decay, which is another formula than one of 0."""
    decoupled: bool = False
    nesterov: bool = False
    bias_correction: bool = False
    momentum_includes_lr: bool = True
    maximize: bool = False
    ema_momentum: float | None = None
    """The decay factor of the averages of variables, 0 in the first step; None where there are none."""
    ema_overwrite_frequency: int | None = None

    @property
    def unbias(self) -> float:
        """What averages are divided by for their start at zero."""
        return 1.0 - self.rho ** (self.step + 1) or 1.0 if self.bias_correction else 1.0

    def numbers_of(self, multipliers: Multipliers = NEUTRAL, unbias: float | None = None) -> Numbers:
        """Return the numbers of the formula for a variable.

        Averages are not divided by `unbias`, but all numbers that meet them are chosen so. An epsilon must not
        vanish then.
        """
        rate, is_inner = self.learning_rate * multipliers.learning_rate, self.rate_is_inner
        unbias, ema = self.unbias if unbias is None else unbias, self.ema_momentum
        root, sign = unbias**0.5, -1.0 if self.maximize else 1.0
        epsilon = self.epsilon * (unbias if self.epsilon_in_sqrt else root) + (TINY if self.bias_correction else 0)
        inside, outside = (epsilon, 0.0) if self.epsilon_in_sqrt else (0.0, epsilon)
        decay = None if self.weight_decay is None else self.weight_decay * multipliers.weight_decay
        return Numbers(
            rate=sign * root * (rate if is_inner else 1.0),
            outer_rate=None if is_inner else rate,
            weight_decay=None if decay is None or self.decoupled else sign * decay,
            shrinkage=rate * decay if decay is not None and self.decoupled else None,
            nesterov_mu=self.momentum if self.nesterov else None,
            rho=self.rho,
            one_minus_rho=1.0 - self.rho,
            mu=0.0 if self.momentum is None else self.momentum,
            epsilon_inside=inside,
            epsilon_outside=outside,
            mg_scale=1.0 / root if self.bias_correction and self.centered else None,
            ema=ema,
            one_minus_ema=None if ema is None else 1.0 - ema,
        )

    @property
    def overwrites(self) -> bool:
        """Whether variables are set to their averages after the step."""
        frequency = self.ema_overwrite_frequency
        return frequency is not None and self.ema_momentum is not None and (self.step + 1) % frequency == 0

    @property
    def rate_is_inner(self) -> bool:
        """Whether steps are multiplied by the learning rate before they enter the momentum, if there is any."""
        return self.momentum is None or self.momentum_includes_lr

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots that the step needs, in order."""
        return needed_slots(self.momentum is not None, self.centered, self.ema_momentum is not None)

    @property
    def averages_decay(self) -> bool:
        """Whether a sparse gradient lets averages of rows that it does not list decay."""
        return not self.lazy and self.momentum is None

    @property
    def variables_shrink(self) -> bool:
        """Whether a sparse gradient lets rows of the variable that it does not list shrink."""
        return not self.lazy and self.decoupled and self.weight_decay is not None

    @property
    def changes_all_rows(self) -> bool:
        """Whether a sparse gradient changes rows that it does not list, of the variable or of slots."""
        averages = self.ema_momentum is not None
        return self.averages_decay or self.variables_shrink or averages

    def used(self, slots: Mapping[str, Kept]) -> list[Kept | None]:
        """Return those of a variable's slots that the step needs, in the order of `SLOTS`; None for others."""
        needed = self.slots
        return [slots[name] if name in needed else None for name in VariableState._fields[1:]]

    @property
    def clips_by_norm(self) -> bool:
        """Whether the norms of gradients are needed."""
        return self.clipnorm is not None or self.global_clipnorm is not None


class VariableState(NamedTuple):
    """A variable and its slots as arrays, or some rows of them; None for slots that are not used."""

    variable: Array
    rms: Array
    momentum: Array | None
    mg: Array | None
    average: Array | None = None


def stepped(xp: Namespace, state: VariableState, gradient: Array, numbers: Numbers) -> VariableState:
    """Return the state after a step, by a gradient that has been clipped, in the dtype of the computation.

    The average of the variable is that of before: it follows once the variable has been rounded, by `averaged`.
    """
    variable, rms, momentum, mg, average = state
    gradient = _plus(gradient, numbers.weight_decay, variable)
    rms = variance = numbers.rho * rms + numbers.one_minus_rho * square(xp, gradient)
    if mg is not None:
        mg = numbers.rho * mg + numbers.one_minus_rho * gradient
        variance = rms - square(xp, _times(numbers.mg_scale, mg))
        variance = xp.maximum(variance, xp.zeros_like(variance))  # it may be negative by rounding
        variance = xp.where(xp.isinf(rms), rms, variance)  # and so may be the square of the mean
    root = xp.sqrt(variance + numbers.epsilon_inside) + numbers.epsilon_outside
    step = _over(numbers.rate * gradient, root)
    if momentum is not None:
        momentum = numbers.mu * momentum + step
        step = momentum if numbers.nesterov_mu is None else _plus(step, numbers.nesterov_mu, momentum)
    change = _plus(_times(numbers.outer_rate, step), numbers.shrinkage, variable)
    return VariableState(variable - change, rms, momentum, mg, average)


def averaged(average: Array, variable: Array, numbers: Numbers) -> Array:
    """Return the average of a variable after a step."""
    return _times(numbers.ema, average) + _times(numbers.one_minus_ema, variable)


def _times(factor: float | None, x: Array) -> Array:
    """Return ``factor * x``, or `x` if there is no such factor."""
    return x if factor is None else factor * x


def _over(x: Array, divisor: Array) -> Array:
    """Return ``x / divisor``, of complex numbers part by part: NumPy would multiply them by the inverse."""
    if not (isinstance(x, np.ndarray | np.generic) and x.dtype.kind == "c"):
        return x / divisor
    quotient = np.empty_like(x)
    quotient.real, quotient.imag = x.real / divisor, x.imag / divisor
    return quotient


def _plus(x: Array, factor: float | None, y: Array) -> Array:
    """Return ``x + factor * y``, or `x` if there is no such term."""
    return x if factor is None else x + factor * y


def square(xp: Namespace, x: Array) -> Array:
    """Return ``|x|**2``."""
    if not xp.isdtype(x.dtype, "complex floating"):
        return x * x
    real, imag = xp.real(x), xp.imag(x)
    return real * real + imag * imag
