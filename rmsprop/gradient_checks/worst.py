"""Worst elements: those where a gradient is wrong, found by halves of the array."""

import heapq
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rmsprop.arrays.libraries import Host

SHOWN = 3
"""How many elements are looked for."""

LOOKS = 100
"""How many slopes are measured in the search at most."""


class Element(NamedTuple):
    """An element of a gradient: where it is, what was given, and what differences tell."""

    place: tuple[int, ...]
    given: complex
    measured: complex


def worst_elements(measure: Callable[[Host], float], gradient: Host, way: Host) -> list[Element]:
    """Return the elements where a gradient is most wrong, the worst first.

    Of the blocks of elements known so far, that with the largest misfit is halved. Only one half needs to be
    measured: slopes add up.

    Parameters
    ----------
    measure : callable
        Returns the slope of the loss along a direction.
    gradient : array of float64 or complex128
    way : array, shape of `gradient`
        A direction without zeros, of which all blocks are parts.
    """
    products = np.real(np.conj(gradient) * way).reshape(-1)

    def misfit(start: int, stop: int) -> float:
        part = np.zeros(gradient.size, way.dtype)
        part[start:stop] = way.reshape(-1)[start:stop]
        return measure(part.reshape(gradient.shape)) - float(products[start:stop].sum())

    whole = misfit(0, gradient.size)
    blocks, looks = [(-abs(whole), 0, gradient.size, whole)], 1
    found: list[int] = []
    while blocks and len(found) < SHOWN and looks < LOOKS:
        _, start, stop, total = heapq.heappop(blocks)
        if stop - start == 1:
            found.append(start)
            continue
        middle = (start + stop) // 2
        first = misfit(start, middle)
        looks += 1
        for left, right, part in ((start, middle, first), (middle, stop, total - first)):
            heapq.heappush(blocks, (-abs(part), left, right, part))
    elements = [_measured(measure, gradient, np.iscomplexobj(way), position) for position in found]
    return sorted(elements, key=lambda each: -abs(each.given - each.measured))


def _measured(measure: Callable[[Host], float], gradient: Host, is_complex: bool, position: int) -> Element:
    """Return an element of a gradient with what differences tell."""
    place = tuple(map(int, np.unravel_index(position, gradient.shape)))
    one = np.zeros(gradient.shape)
    one[place] = 1
    value = measure(one) + (1j * measure(1j * one) if is_complex else 0)
    return Element(place, gradient[place].item(), value)
