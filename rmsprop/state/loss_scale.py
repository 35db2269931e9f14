"""Loss scaling: gradients of halves are kept from underflow, and divided again in the update."""

import math
from typing import Any, Protocol

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.calls import call_of

LARGEST = 2.0**126
"""The largest scale of which the inverse is a normal number of single precision."""


class Steps(Protocol):
    """What counts steps; see `rmsprop.state.iterations.Iterations`."""

    def settle(self) -> None:
        """Tell the loss scale of all steps that devices have decided on; wait until they have."""


class LossScale:
    """A factor by which a loss is multiplied, so that its gradients do not underflow in half precision.

    Give it to the optimizer, as ``RMSprop(nonfinite="skip", loss_scale=LossScale())``, and apply gradients of
    the scaled loss. The update divides them, in the precision that it computes in and without a pass of its own;
    limits of clipping are those of what results. If they are not finite, the scale is halved, down to 1, and the
    step left out; after `dynamic_growth_steps` steps in a row that were taken, it is doubled. So does
    ``tf.keras.mixed_precision.LossScaleOptimizer``. Of threads that share the optimizer, let one at a time be
    between reading a dynamic scale and its step.

    Parameters
    ----------
    initial_scale : float, default 2**15
        At least 1; exact only if a power of two.
    dynamic_growth_steps : int, default 2000
    dynamic : bool, default True
        Whether the scale changes. That needs ``nonfinite="skip"``.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import LossScale, RMSprop
    >>> x, small = np.ones(2, np.float16), np.float32([1e-8, 1e-9])    # in half precision, 0
    >>> opt = RMSprop(0.1, nonfinite="skip", loss_scale=LossScale())
    >>> gradient = (small * opt.loss_scale.scale).astype(np.float16)   # that of the scaled loss
    >>> _ = opt.apply_gradients([(gradient, x)])
    >>> opt.get_slot(x, "rms").numpy() > 0
    array([ True,  True])
    >>> _ = opt.apply_gradients([(gradient * np.float16(np.inf), x)])
    >>> opt.skipped, opt.loss_scale.scale
    (1, 16384.0)
    """

    def __init__(
        self, initial_scale: float = 2.0**15, dynamic_growth_steps: int = 2000, dynamic: bool = True
    ) -> None:
        if not isinstance(dynamic, bool | np.bool_):
            raise TypeError(f"dynamic must be True or False; given {dynamic!r}.")
        if isinstance(dynamic_growth_steps, bool) or not isinstance(dynamic_growth_steps, int | np.integer):
            raise TypeError(f"dynamic_growth_steps must be a whole number; given {dynamic_growth_steps!r}.")
        if dynamic_growth_steps < 1:
            raise ValueError(f"dynamic_growth_steps must be at least 1; given {dynamic_growth_steps!r}.")
        self.initial_scale = _scale("initial_scale", initial_scale)
        self.dynamic_growth_steps, self.dynamic = int(dynamic_growth_steps), bool(dynamic)
        self._scale, self._counter = self.initial_scale, 0
        self.steps: Steps | None = None

    @property
    def scale(self) -> float:
        """What to multiply the loss of the next step by; on a GPU, this waits until the last step is decided."""
        self._settle()
        return self._scale

    @property
    def dynamic_counter(self) -> int:
        """How many steps have been taken since the scale was changed or a step was left out."""
        self._settle()
        return self._counter

    def get_scaled_loss(self, loss: Any) -> Any:
        """Return a loss, or an array of any library, times the scale."""
        return loss * self.scale

    def get_config(self) -> dict[str, Any]:
        """Return the arguments; see `get_weights` for the state."""
        return {
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
            "dynamic": self.dynamic,
        }

    def get_weights(self) -> list[Host]:
        """Return scale and `dynamic_counter`, as `set_weights` takes them."""
        return [np.array(self.scale), np.array(self.dynamic_counter)]

    def set_weights(self, weights: Any) -> None:
        """Replace scale and `dynamic_counter`.

        Raises
        ------
        TypeError, ValueError
            If these are not two numbers, or out of range. Nothing has changed then.
        """
        if len(weights) != 2:
            raise ValueError(f"expected 2 weights, the scale and the counter; given {len(weights)}.")
        scale, counter = _scale("the scale", weights[0]), np.asarray(weights[1])
        if counter.dtype.kind not in "iu":
            raise TypeError(f"the counter must be a whole number; given {weights[1]!r}.")
        if counter.shape or not 0 <= counter < 2**63:
            raise ValueError(f"the counter must be a number that is not negative; given {weights[1]!r}.")
        self._settle()
        self._scale, self._counter = scale, int(counter)

    def _settle(self) -> None:
        if self.steps is not None:
            self.steps.settle()

    def _update(self, is_finite: bool) -> None:
        """Take note of a step that was taken, or left out."""
        if not self.dynamic:
            return
        if not is_finite:
            self._scale, self._counter = max(self._scale / 2, 1.0), 0
        elif self._counter + 1 >= self.dynamic_growth_steps:
            self._scale, self._counter = min(self._scale * 2, max(self._scale, LARGEST)), 0
        else:
            self._counter += 1

    def __repr__(self) -> str:
        return call_of(self, LossScale, self.get_config())


def _scale(name: str, value: Any) -> float:
    """Return a scale as a float; it must be in range."""
    array = np.asarray(value)
    if array.shape or array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a number; given {value!r}.")
    number = float(array)
    if not (1 <= number <= LARGEST) or math.isnan(number):
        raise ValueError(f"{name} must be between 1 and 2**126; given {value!r}.")
    return number
