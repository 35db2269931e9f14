"""What only a GPU can decide: each choice is timed, and the best one recommended."""

import statistics
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import contenders
from measuring import seconds_of
from scenarios import SCENARIOS

from rmsprop_cupy import kernels, lists


class Choice(NamedTuple):
    """A number in the backend for CuPy, and what it is to be chosen by."""

    module: Any
    name: str
    values: tuple[Any, ...]
    scenarios: tuple[str, ...]

    @property
    def label(self) -> str:
        """Where it stands."""
        return f"{self.module.__name__}.{self.name}"


LISTS = ("300 × 1,000", "300 × 100,000", "ResNet-50, momentum")
SPLITS = tuple([kernels.Split(chunk, vector) for vector in (1, 4) for chunk in (512, 1_024, 2_048, 4_096)])
CHOICES = [
    Choice(lists, "FEW", (0, 3, 16), ("1 × 1,000", "1 × 1,000,000", "1 × 64,000,000")),
    Choice(kernels, "SPLIT", SPLITS, LISTS),
    Choice(kernels, "BLOCK", (128, 256, 512), (*LISTS, "1 × 64,000,000")),
]


@contextmanager
def chosen(choice: Choice, value: Any):
    """Set a number to a value, and back."""
    before = getattr(choice.module, choice.name)
    setattr(choice.module, choice.name, value)
    try:
        yield
    finally:
        setattr(choice.module, choice.name, before)


def recommendations(check: Callable[..., None]) -> list[dict[str, Any]]:
    """Return for each choice its values, their times relative to today's, and the best."""
    found = []
    for choice in CHOICES:
        today = getattr(choice.module, choice.name)
        times = {value: _times(choice, value, check) for value in choice.values}
        relative = {
            _shown(value): statistics.mean([a / b for a, b in zip(each, times[today], strict=True)])
            for value, each in times.items()
        }
        best = min(relative, key=relative.__getitem__)
        found.append({"what": choice.label, "today": _shown(today), "best": best, "relative": relative})
    return found


def _shown(value: Any) -> str:
    return f"Split({value.chunk}, {value.vector})" if isinstance(value, kernels.Split) else str(value)


def _times(choice: Choice, value: Any, check: Callable[..., None]) -> list[float]:
    with chosen(choice, value):
        times = []
        for name in choice.scenarios:
            check(f"{choice.label} = {value}: {name}", SCENARIOS[name])
            times.append(seconds_of(contenders.ours(SCENARIOS[name])[0]))
        return times
