"""Parts of an array, or None of None, which stands for a slot that there is not.

That is decided when a kernel is compiled. A conditional expression would leave it open until it runs: complex
numbers would then be multiplied by real ones as by complex ones, which makes NaN of infinities, and takes longer.
"""

from typing import Any

from numba import types
from numba.extending import overload

from rmsprop_numba.pointers import stretch


def item(array: Any, i: Any) -> Any:
    """Return an element, or a row."""


def part(array: Any, start: Any, stop: Any) -> Any:
    """Return a stretch."""


def view(array: Any, start: Any, size: Any) -> Any:
    """Return a stretch that keeps no count of references: it must not outlive the array."""


def own(numbers: Any, multiplied: Any, k: Any) -> Any:
    """Return numbers of the formula with those of a variable, in row `k`, in the place of the first of them."""


def unless_none(number: Any, other: Any) -> Any:
    """Return another number in the place of one."""


def row_for(slot: Any, work: Any, i: Any, size: Any) -> Any:
    """Return the beginning of one of the three parts of `work`, as memory for the numbers of a slot."""


def reals_of(like: Any) -> Any:
    """Return how many reals a number of an array consists of."""


def numbers_in(reals: Any, like: Any) -> Any:
    """Return reals as the complex numbers that they are if `like` has such numbers, or else as they are."""


@overload(item, inline="always")
def _item(array, i):
    return (lambda array, i: None) if array == types.none else lambda array, i: array[i]


@overload(part, inline="always")
def _part(array, start, stop):
    if array == types.none:
        return lambda array, start, stop: None
    return lambda array, start, stop: array[start:stop]


@overload(view, inline="always")
def _view(array, start, size):
    if array == types.none:
        return lambda array, start, size: None
    return lambda array, start, size: stretch(array.ctypes.data, start, size, array)


@overload(own, inline="always")
def _own(numbers, multiplied, k):
    if multiplied == types.none:
        return lambda numbers, multiplied, k: numbers
    return lambda numbers, multiplied, k: (
        multiplied[k, 0],
        unless_none(numbers[1], multiplied[k, 1]),
        unless_none(numbers[2], multiplied[k, 2]),
        unless_none(numbers[3], multiplied[k, 3]),
        *numbers[4:],
    )


@overload(unless_none, inline="always")
def _unless_none(number, other):
    return (lambda number, other: None) if number == types.none else lambda number, other: other


@overload(row_for, inline="always")
def _row_for(slot, work, i, size):
    if slot == types.none:
        return lambda slot, work, i, size: None
    return lambda slot, work, i, size: stretch(work.ctypes.data, i * (work.size // 3), size, work)


@overload(reals_of, inline="always")
def _reals_of(like):
    return (lambda like: 2) if isinstance(like.dtype, types.Complex) else lambda like: 1


@overload(numbers_in, inline="always")
def _numbers_in(reals, like):
    if reals == types.none or not isinstance(like.dtype, types.Complex):
        return lambda reals, like: reals
    return lambda reals, like: stretch(reals.ctypes.data, 0, reals.size // 2, like)
