"""What a learning-rate schedule is."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, SupportsFloat, SupportsInt, TypeAlias, TypeVar

from rmsprop.schedules.arguments import CHECKS, check_number

Step: TypeAlias = SupportsFloat | SupportsInt


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
        step : int or float, or a scalar of any library
            Number of finished steps, from 0.

        Returns
        -------
        float
            The learning rate.

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

    def __post_init__(self) -> None:
        for field in fields(self):
            check = CHECKS.get(field.name, check_number)
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))

    def __call__(self, step: Step) -> float:
        """Return the learning rate after `step` finished steps."""
        number: Any = step
        try:
            number = float(number)
        except TypeError:  # a counter that knows __int__ only
            number = float(int(number))
        return self._rate(number)

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
