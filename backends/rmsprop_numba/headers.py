"""The check that a list of pairs is what it was in the last step, read from CPython's objects in compiled code.

In a step that repeats the one before, this is all that variables and gradients are checked for: 0.02 us for each,
where Python takes 1 us. `is_known` tells whether objects are laid out as is assumed here; if not, it isn't done.
"""

import ctypes
import struct
import sys
from collections.abc import Sequence
from functools import cache

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop_numba import caching
from rmsprop_numba.pointers import int_at, word_at
from rmsprop_numba.variables import address

Array = Host

# Offsets in bytes: of the type of an object, of the number of items in a list or tuple, of the items of either,
# and of what describes an array.
TYPE, LENGTH = 8, object.__basicsize__
LIST_ITEMS, TUPLE_ITEMS = LENGTH + 8, tuple.__basicsize__
DATA, NDIM, SHAPE, DTYPE, FLAGS = (object.__basicsize__ + 8 * k for k in (0, 1, 2, 5, 6))

READABLE = 0x1 | 0x100
"""Flags of arrays that lie in memory in C order, without gaps, and aligned."""
WRITEABLE = READABLE | 0x400

# The interpreter's lock is held meanwhile, so that nobody changes what is read.
compiled = caching.compiled()


@compiled
def read(given, expected, occupied, gradients):
    """Write the addresses of the gradients; return False if anything is not as expected.

    Parameters
    ----------
    given : int
        Address of the list of pairs (gradient, variable).
    expected : array of int64
        First the addresses of the types of pairs and of gradients. Then for each variable: addresses of what the
        caller passes, of its array, and of the data of this; size in bytes; number of axes; address of the dtype;
        shape.
    occupied : array of int64, shape (n, 2)
        Start and end of all memory that the step writes to, in rising order.
    gradients : array of int64, one for each variable
    """
    pairs, at = word_at(given + LIST_ITEMS), 2
    for k in range(len(gradients)):
        pair = word_at(pairs + 8 * k)
        if word_at(pair + TYPE) != expected[0] or word_at(pair + LENGTH) != 2:
            return False
        gradient, variable = word_at(pair + TUPLE_ITEMS), word_at(pair + TUPLE_ITEMS + 8)
        key, array, data, size, ndim = expected[at : at + 5]
        if variable != key or word_at(array + DATA) != data or word_at(gradient + TYPE) != expected[1]:
            return False
        like = expected[at + 4 : at + 6 + ndim]
        if not (is_like(array, like, WRITEABLE) and is_like(gradient, like, READABLE)):
            return False
        gradients[k] = word_at(gradient + DATA)
        if is_occupied(occupied, gradients[k], gradients[k] + size):
            return False
        at += len(like) + 4
    return True


@compiled
def is_like(array, like, flags):
    """Tell whether an array has these flags, and number of axes, dtype and shape as expected."""
    if (
        int_at(array + FLAGS) & flags != flags
        or int_at(array + NDIM) != like[0]
        or word_at(array + DTYPE) != like[1]
    ):
        return False
    shape = word_at(array + SHAPE)
    for axis in range(like[0]):  # noqa: SIM110 (Numba has no generators here)
        if word_at(shape + 8 * axis) != like[2 + axis]:
            return False
    return True


@compiled
def is_occupied(occupied, start, stop):
    """Tell whether one of the stretches of memory, which are apart and in order, has part of another one."""
    low, high = 0, len(occupied)
    while low < high:  # the first stretch that does not end before
        middle = (low + high) // 2
        if occupied[middle, 1] <= start:
            low = middle + 1
        else:
            high = middle
    return low < len(occupied) and occupied[low, 0] < stop and start < stop


def expected_of(keys: Sequence[object], arrays: Sequence[Array]) -> Array:
    """Return what `read` is to find of variables: what the caller passes for them, and their arrays."""
    numbers = [id(tuple), id(np.ndarray)]
    for key, array in zip(keys, arrays, strict=True):
        numbers += id(key), id(array), address(array), array.nbytes, array.ndim, id(array.dtype), *array.shape
    return np.array(numbers, np.int64)


def occupied_by(arrays: Sequence[Array]) -> Array:
    """Return starts and ends of arrays without gaps, in the order of their addresses."""
    starts = [(address(array), array.nbytes) for array in arrays if array.size]
    return np.array(sorted((start, start + size) for start, size in starts), np.int64).reshape(-1, 2)


@cache
def is_known() -> bool:
    """Tell whether the objects of this interpreter and this NumPy are laid out as `read` takes it."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sys.implementation.name != "cpython" or struct.calcsize("P") != 8 or not has_lock:
        return False
    samples = [np.zeros(shape, dtype) for shape in [(), (0,), (3,), (2, 3, 4)] for dtype in ("f4", "c16", "u2")]
    samples += [samples[-1].T, samples[-1][:, ::2]]
    samples[0].flags.writeable = False
    pair, given = (samples[0], samples[1]), [samples[2], samples[3]]
    items = [(id(pair) + TUPLE_ITEMS, pair), (_word(id(given) + LIST_ITEMS), given)]
    return all([_is_laid_out(array) for array in samples]) and all(
        [
            _word(id(sequence) + TYPE) == id(type(sequence))
            and _word(id(sequence) + LENGTH) == len(sequence)
            and [_word(start), _word(start + 8)] == [*map(id, sequence)]
            for start, sequence in items
        ]
    )


def _is_laid_out(array: Array) -> bool:
    """Tell whether an array's fields stand where they are read."""
    start, shape = id(array), _word(id(array) + SHAPE)
    return (
        _word(start + TYPE) == id(np.ndarray)
        and _word(start + DATA) == address(array)
        and _int(start + NDIM) == array.ndim
        and [_word(shape + 8 * axis) for axis in range(array.ndim)] == [*array.shape]
        and _word(start + DTYPE) == id(array.dtype)
        and _int(start + FLAGS) == array.flags.num
    )


def _word(at: int) -> int:
    return ctypes.c_int64.from_address(at).value


def _int(at: int) -> int:
    return ctypes.c_int.from_address(at).value
