"""The form of thinc: an optimizer that is called with each parameter and its gradient."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from rmsprop.arrays.libraries import Array, namespace, on_device
from rmsprop.optimizer import RMSprop
from rmsprop.schedules import LearningRateSchedule
from rmsprop.settings.checks import flag, number

Key = tuple[int, str]
"""What thinc knows a parameter by: the number of its model, and its name there."""

REFUSED = {
    "learning_rate": "learn_rate",
    "lr": "learn_rate",
    "global_clipnorm": "clipnorm, as thinc shows parameters one at a time",
}
"""Settings of `RMSprop` that have no meaning here, and what to give instead."""


class ThincRMSprop:
    """An optimizer for ``thinc.api.Model.finish_update``, in the place of ``thinc.api.Optimizer``.

    thinc's own raises ``NotImplementedError`` where it should be RMSprop.

    Parameters
    ----------
    learn_rate : float, iterator, list, callable or LearningRateSchedule, default 0.001
        The iterators, and lists, of thinc 8 give a value for each call of `step_schedules`, the last one for all
        further ones. A ``Schedule`` of thinc 9, or any callable, is called with ``(step, key=...,
        last_score=...)``, a `rmsprop.schedules.LearningRateSchedule` with the step.
    use_averages : bool, default True
        Whether `averages` are kept, by the formula of thinc.
    **settings
        Those of `RMSprop`: ``clipnorm=1.0`` for thinc's ``grad_clip``, ``weight_decay`` for ``L2``, with
        ``decoupled=True`` for ``L2_is_weight_decay``. ``nonfinite="skip"`` leaves out single parameters.

    Attributes
    ----------
    averages : dict or None
        Averages of the parameters by key, for ``model.use_params(optimizer.averages)``.
    step : int
        How often `step_schedules` has been called.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these.

    Notes
    -----
    Parameters are of NumPy or CuPy, and updated in place. Each has the count of its own steps, which ``decay`` and
    ``bias_correction`` look at. thinc clips before it adds ``L2`` to the gradient only if that is a weight decay;
    here clipping comes first.

    Source: ``thinc/optimizers.py``, versions 8.3 and 9.1.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop.adapters import ThincRMSprop
    >>> optimizer = ThincRMSprop(0.1)
    >>> weights, gradient = np.ones(2, np.float32), np.array([1, -1], np.float32)
    >>> _ = optimizer((0, "W"), weights, gradient)    # as model.finish_update(optimizer) does
    >>> weights.round(2), gradient
    (array([0.68, 1.32], dtype=float32), array([0., 0.], dtype=float32))
    """

    def __init__(self, learn_rate: Any = 0.001, *, use_averages: bool = True, **settings: Any) -> None:
        for name in settings.keys() & REFUSED.keys():
            raise TypeError(f"ThincRMSprop has no {name}; expected {REFUSED[name]}.")
        RMSprop(**settings)  # which checks them
        self.averages: dict[Key, Array] | None = {} if flag({}, "use_averages", use_averages) else None
        self.step = 0
        self._last_score: tuple[int, float] | None = None
        self._settings = settings
        self._optimizers: dict[Key, RMSprop] = {}
        self._weights: dict[Key, Array] = {}
        self._counts: Counter[Key] = Counter()
        self.learn_rate = learn_rate

    @property
    def learn_rate(self) -> float:
        """The present learning rate; a number, or a schedule, can be given."""
        return self._rate_of(None)

    @learn_rate.setter
    def learn_rate(self, value: Any) -> None:
        rates = iter(value) if isinstance(value, list) else value
        schedule: Callable[..., Any] | Iterator[Any] | None = None
        if isinstance(rates, Iterator):
            first = next(rates, None)
            if first is None:
                raise ValueError(f"learn_rate must have at least one value; given {value!r}.")
            schedule, rates = rates, first
        elif callable(rates):
            schedule, rates = rates, 0.0
        self._rate, self._schedule = number("learn_rate", rates), schedule

    @property
    def last_score(self) -> tuple[int, float] | None:
        """The step of the last score, and the score, which schedules may look at; a score can be given."""
        return self._last_score

    @last_score.setter
    def last_score(self, score: float) -> None:
        self._last_score = (self.step, score)

    def step_schedules(self) -> None:
        """Go on to the next step of schedules."""
        self.step += 1
        if isinstance(self._schedule, Iterator):
            self._rate = number("learn_rate", next(self._schedule, self._rate))

    def _rate_of(self, key: Key | None) -> float:
        if self._schedule is None or isinstance(self._schedule, Iterator):
            return self._rate
        if isinstance(self._schedule, LearningRateSchedule):
            return number("learn_rate", self._schedule(self.step))
        return number("learn_rate", self._schedule(self.step, key=key, last_score=self.last_score))

    def __call__(self, key: Key, weights: Array, gradient: Array, *, lr_scale: float = 1.0) -> tuple[Array, Array]:
        """Update a parameter in place.

        Parameters
        ----------
        key : (int, str)
            What the state of the parameter is kept by, whatever array it comes in.
        weights, gradient : array
            Of the same library and shape.
        lr_scale : float, default 1.0
            What the learning rate is multiplied by.

        Returns
        -------
        weights, gradient : array
            The same arrays, the gradient filled with zeros. If there are no elements, nothing is done.

        Raises
        ------
        TypeError, ValueError
            As `RMSprop.apply_gradients`, and if `weights` have another shape, dtype or library than before.
        """
        if len(gradient) < 1:
            return weights, gradient
        rate = self._rate_of(key) * number("lr_scale", lr_scale)
        optimizer = self._optimizers.get(key) or RMSprop(**self._settings)
        if self._weights.get(key, weights) is not weights:
            optimizer.rebind(weights)
            self._weights[key] = weights
        optimizer.learning_rate = rate
        optimizer.apply_gradients([(gradient, weights)])
        self._optimizers[key], self._weights[key] = optimizer, weights
        self._counts[key] += 1
        with on_device(weights):
            gradient[...] = 0
            if self.averages is not None:
                self._average(key, weights)
        return weights, gradient

    def _average(self, key: Key, weights: Array) -> None:
        """Move the average of a parameter on, from zero."""
        assert self.averages is not None
        if key not in self.averages:
            self.averages[key] = namespace(weights).zeros_like(weights)
        count, average = self._counts[key], self.averages[key]
        average -= (1 - min((1 + count) / (10 + count), 0.9999)) * (average - weights)
