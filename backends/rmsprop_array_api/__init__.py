"""Arrays of any library that follows the Array API standard, in pure calls of that standard.

No array is changed in place: each `rmsprop.Variable` gets a new one, which works for immutable arrays, too.
"""

from rmsprop_array_api.step import (
    check_variable,
    device_of,
    in_place,
    in_range,
    memory,
    overlapping,
    prepare,
    squared_norms,
    zeros,
)

__all__ = [
    "check_variable",
    "device_of",
    "in_place",
    "in_range",
    "memory",
    "overlapping",
    "prepare",
    "squared_norms",
    "zeros",
]
