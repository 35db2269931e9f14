"""The base of all learning-rate schedules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, SupportsFloat, SupportsInt, TypeAlias, TypeVar, overload

import numpy as np

from rmsprop.arrays.libraries import Host, device, is_array, namespace, on_device, refuse_subclass, to_numpy
from rmsprop.schedules.arguments import CHECKS, check_number, check_step
from rmsprop.variables.variable import array_of

Step: TypeAlias = SupportsFloat | SupportsInt
Steps: TypeAlias = Host


class LearningRateSchedule:
    """Base of all schedules; a subclass defines ``__call__``, and ``get_config`` if it is to be saved.

    Examples
    --------
    >>> class Halving(LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.5**step
    >>> Halving()(3)
    0.125
    """

    def __call__(self, step: Step) -> float:
        """Return the learning rate after `step` finished steps.

        Parameters
        ----------
        step : int or float, a scalar of any library, or a `Variable`
            Number of finished steps, from 0. Built-in schedules take arrays of any library, too, to be plotted;
            so do subclasses that compute with what arrays know.

        Returns
        -------
        float
            The learning rate; of an array, an array of that library.

        Raises
        ------
        NotImplementedError
            If the subclass does not define it.
        """
        raise NotImplementedError(f"schedule {type(self).__name__} must define __call__(self, step)")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which `from_config` makes an equal schedule.

        Returns
        -------
        dict
            Value by argument name, in the order of the constructor.

        Raises
        ------
        NotImplementedError
            If the subclass does not define it.
        """
        raise NotImplementedError(f"schedule {type(self).__name__} must define get_config(self) to be saved")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return ``cls(**config)``.

        Parameters
        ----------
        config : mapping
            What `get_config` returned.

        Returns
        -------
        LearningRateSchedule
            A new schedule.
        """
        return cls(**config)


@dataclass(frozen=True)
class BuiltInSchedule(LearningRateSchedule):
    """A schedule whose fields are its arguments: checked once, so that calls need not, and then constant."""

    _checks: ClassVar[Mapping[str, Callable[[str, Any], object]]] = CHECKS

    def __post_init__(self) -> None:
        for field in fields(self):
            check = self._checks.get(field.name, check_number)
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))

    @overload
    def __call__(self, step: Steps) -> Steps: ...  # type: ignore[overload-overlap]  # arrays have __float__, too
    @overload
    def __call__(self, step: Step) -> float: ...
    def __call__(self, step: Any) -> Any:
        """Return the learning rate after `step` finished steps, of an array that of each element.

        A negative step continues the formula to the left, as in Keras.

        Raises
        ------
        TypeError, ValueError
            If `step` is no real number, or not finite.
        """
        if type(step) is int and abs(step) < 2**63:  # which the optimizer passes
            return self._rate(float(step))
        step = array_of(step)
        return self._rates(step) if getattr(step, "shape", ()) else self._rate(check_step(step))

    def _rates(self, steps: Any) -> Any:
        """Return the rates of an array of steps, as an array of its library and device."""
        refuse_subclass(steps, "step")
        numbers = to_numpy(steps)
        rates = np.array([self._rate(check_step(step)) for step in numbers.ravel().tolist()], np.float64)
        rates = rates.reshape(numbers.shape)
        if isinstance(steps, np.ndarray) or not is_array(steps):
            return rates
        with on_device(steps):
            return namespace(steps).asarray(rates, device=device(steps))

    def _rate(self, step: float) -> float:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as Python numbers, strings and lists."""
        arguments = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}


BUILT_IN: dict[str, type[BuiltInSchedule]] = {}
_Class = TypeVar("_Class", bound=type[BuiltInSchedule])


def built_in(cls: _Class) -> _Class:
    """Let `deserialize` know `cls`, a schedule that Keras has too, by its name."""
    BUILT_IN[cls.__name__] = cls
    return cls
