"""Reports on gradients: what was found on each array, as attributes and as a table."""

import math
from dataclasses import dataclass
from typing import Any

from rmsprop.gradient_checks.messages import message
from rmsprop.gradient_checks.verdicts import Verdict
from rmsprop.gradient_checks.worst import Element

COLUMNS = "array", "verdict", "scale", "elements", "misfit", "error"


@dataclass(frozen=True)
class ArrayCheck:
    """What was found on the gradient of one array.

    Attributes
    ----------
    name : str
        The path to the array: keys and positions, joined by ``/``.
    verdict : str
        As in `check_gradients`.
    scale : float
        What the true gradient was multiplied by; NaN if it is not so.
    elements : int
    misfit, error : float
        Of slopes as the gradient predicts them, and of those measured, in parts of the largest.
    message : str
        What it means, and what to try.
    worst : tuple of (place, given, measured)
        Elements where the gradient is wrong.
    """

    name: str
    verdict: str
    scale: float
    elements: int
    misfit: float
    error: float
    message: str
    worst: tuple[Element, ...] = ()

    @classmethod
    def of(
        cls, name: str, elements: int, verdict: Verdict, is_complex: bool, worst: tuple[Element, ...] = ()
    ) -> "ArrayCheck":
        """Return the finding of a verdict."""
        text = message(verdict, is_complex)
        return cls(name, verdict.word, verdict.scale, elements, verdict.misfit, verdict.error, text, worst)

    def _row(self) -> tuple[str, ...]:
        numbers = "" if math.isnan(self.scale) else f"{self.scale:.4g}", str(self.elements)
        return self.name, self.verdict, *numbers, f"{self.misfit:.1e}", f"{self.error:.1e}"

    def _lines(self) -> list[str]:
        lines = [f"{self.name}: {self.message}"] if self.message else []
        for element in self.worst:
            place = ", ".join(map(str, element.place))
            lines.append(f"    [{place}]  given {element.given:.6g}  measured {element.measured:.6g}")
        return lines


@dataclass(frozen=True, repr=False)
class GradientCheck:
    """What `check_gradients` found. It prints as a table, and is true if all gradients are right.

    Attributes
    ----------
    success : bool
        Whether all verdicts are "right".
    verdicts : str, in the structure of `x0`
    scales : float, in the structure of `x0`
        The number s of each verdict, 1 for "right", 0 for "zero", NaN where there is none.
    arrays : tuple of ArrayCheck
        What was found on each array, with misfits, messages and the worst elements.
    nfev : int
        Evaluations of the loss.
    """

    success: bool
    verdicts: Any
    scales: Any
    arrays: tuple[ArrayCheck, ...]
    nfev: int

    def __bool__(self) -> bool:
        return self.success

    def __repr__(self) -> str:
        rows = [COLUMNS, *(array._row() for array in self.arrays)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        lines += [line for array in self.arrays for line in array._lines()]
        return "\n".join(line.rstrip() for line in lines)
