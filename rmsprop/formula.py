"""The formula of RMSprop: what a step computes, the numbers in it, and the slots that it remembers.

With a gradient ``g`` that has been clipped to a `limit` and multiplied by a `factor`, a step is::

    rms      = rho * rms + one_minus_rho * |g|**2
    variance = rms                                      or, if centered,
    mg       = rho * mg + one_minus_rho * g
    variance = rms - |mg|**2
    step     = learning_rate * g / (sqrt(variance + epsilon_inside) + epsilon_outside)
    momentum = mu * momentum + step                     or, without momentum, no such slot
    variable = variable - momentum                      or, without momentum, variable - step

`stepped` is this for whole arrays of any library. Tests run it in extended precision, and compare. The compiled
kernels have the same lines, in these words: ``stepped`` in ``rmsprop_numba/kernels.py`` and ``formula`` in
``rmsprop_cupy/source.py``.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeVar

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, Namespace

Kept = TypeVar("Kept")


class Slot(NamedTuple):
    """What a step remembers of each element of a variable; zero before the first step."""

    is_needed: Callable[[bool, bool], bool]
    """Whether a step needs it, given whether there is momentum and whether the formula is centered."""
    averages_squares: bool = False
    """Whether it is an average of squares: never negative, and real even of complex numbers."""

    def dtype(self, variable: str, complex_as_real: bool) -> str:
        """Return the dtype of the slot of a variable, given the variable's.

        If real and imaginary part count as two reals, a complex average of squares holds that of the one and that
        of the other.
        """
        compute = dtypes.COMPUTE[variable]
        return dtypes.real(compute) if self.averages_squares and not complex_as_real else compute

    def check(self, array: Any, what: str) -> None:
        """Raise ``ValueError`` if numbers for the slot, in an array of NumPy, are negative where none can be."""
        parts = (array.real, array.imag) if array.dtype.kind == "c" else (array,)
        if self.averages_squares and any((part < 0).any() for part in parts):
            raise ValueError(f"{what} is an average of squares; given negative numbers.")


SLOTS = {
    "rms": Slot(lambda has_momentum, centered: True, averages_squares=True),
    "momentum": Slot(lambda has_momentum, centered: has_momentum),
    "mg": Slot(lambda has_momentum, centered: centered),
}
"""The slots by name, in the order in which they are created and kernels take them."""


@cache
def needed_slots(has_momentum: bool, centered: bool) -> tuple[str, ...]:
    """Return the names of the slots that a step needs, in order."""
    return tuple([name for name, slot in SLOTS.items() if slot.is_needed(has_momentum, centered)])


class Numbers(NamedTuple):
    """The numbers of the formula, in the order in which kernels take them."""

    learning_rate: float
    rho: float
    one_minus_rho: float
    mu: float
    """The momentum, where the slot is meant by that word; 0 if there is none."""
    epsilon_inside: float
    """What is added inside of the root; this or `epsilon_outside` is zero."""
    epsilon_outside: float


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
    """How many steps were taken before; only given with `state_dtype`, whose rounding depends on it."""
    nonfinite: str = "propagate"
    """What becomes of a step with gradients that are not finite; see `rmsprop.RMSprop`."""
    loss_scale: float = 1.0
    """What gradients are to be divided by, by their factors; the limits of clipping are times as high."""

    @property
    def numbers(self) -> Numbers:
        """The numbers of the formula."""
        inside, outside = (self.epsilon, 0.0) if self.epsilon_in_sqrt else (0.0, self.epsilon)
        return Numbers(self.learning_rate, self.rho, 1.0 - self.rho, self.momentum or 0.0, inside, outside)

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots that the step needs, in order."""
        return needed_slots(self.momentum is not None, self.centered)

    def used(self, slots: Mapping[str, Kept]) -> list[Kept | None]:
        """Return those of a variable's slots that the step needs, in the order of `SLOTS`; None for others."""
        needed = self.slots
        return [slots[name] if name in needed else None for name in SLOTS]

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


def stepped(xp: Namespace, state: VariableState, gradient: Array, numbers: Numbers) -> VariableState:
    """Return the state after a step, by a gradient that has been clipped, in the dtype of the computation."""
    variable, rms, momentum, mg = state
    rms = variance = numbers.rho * rms + numbers.one_minus_rho * square(xp, gradient)
    if mg is not None:
        mg = numbers.rho * mg + numbers.one_minus_rho * gradient
        variance = rms - square(xp, mg)
        variance = xp.maximum(variance, xp.zeros_like(variance))  # it may be negative by rounding
        variance = xp.where(xp.isinf(rms), rms, variance)  # and so may be the square of the mean
    step = (
        numbers.learning_rate * gradient / (xp.sqrt(variance + numbers.epsilon_inside) + numbers.epsilon_outside)
    )
    if momentum is not None:
        step = momentum = numbers.mu * momentum + step
    return VariableState(variable - step, rms, momentum, mg)


def square(xp: Namespace, x: Array) -> Array:
    """Return ``|x|**2``."""
    if not xp.isdtype(x.dtype, "complex floating"):
        return x * x
    real, imag = xp.real(x), xp.imag(x)
    return real * real + imag * imag
