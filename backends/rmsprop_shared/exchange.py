"""The check that a list of pairs is what it was in the last step, by DLPack's C functions, in compiled code.

A library that has them declares it by the attribute ``__dlpack_c_exchange_api__`` of the type of its arrays, see
the Array API standard. They tell where an array lies in memory without a call in Python.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop_numba import caching, headers
from rmsprop_numba.headers import LENGTH, LIST_ITEMS, TUPLE_ITEMS, TYPE
from rmsprop_numba.pointers import described, word_at

# What a DLTensor consists of, in words of 64 bits: address, device, number of axes with dtype, addresses of shape
# and strides in elements, offset in bytes.
DATA, DEVICE, KIND, SHAPE, STRIDES, OFFSET, WORDS = range(7)
FIXED = 7
"""Numbers in a row of what is expected before shape and strides."""
MAJOR = 1
"""The version of DLPack that all of this is about."""

# The interpreter's lock is held meanwhile, so that nobody changes what is read.
compiled = caching.compiled()


@compiled
def read(given, function, kinds, expected, occupied, gradients, words):
    """Write the addresses of the gradients; return False if anything is not as expected.

    Parameters
    ----------
    given : int
        Address of the list of pairs (gradient, variable).
    function : int
        Address of the library's C function, see `function_of`.
    kinds : array of int64
        Addresses of the types of pairs and of gradients.
    expected : array of int64
        For each variable: addresses of what the caller passes, and of its array; size in bytes, of an element and
        of all; address of the memory; device; dtype and number of axes; shape; strides.
    occupied : array of int64, shape (n, 2)
        Start and end of all memory that the step writes to, in rising order.
    gradients : array of int64, one for each variable
    words : array of int64
        Memory for one array's description.
    """
    pairs, at = word_at(given + LIST_ITEMS), 0
    for k in range(len(gradients)):
        pair = word_at(pairs + 8 * k)
        if word_at(pair + TYPE) != kinds[0] or word_at(pair + LENGTH) != 2:
            return False
        gradient, variable = word_at(pair + TUPLE_ITEMS), word_at(pair + TUPLE_ITEMS + 8)
        if variable != expected[at] or word_at(gradient + TYPE) != kinds[1]:
            return False
        ndim = expected[at + 6] & 0xFFFFFFFF
        like = expected[at + 4 : at + FIXED + 2 * ndim]
        if not (is_there(function, expected[at + 1], like, words) and is_like(function, gradient, like, words)):
            return False
        start, size = words[DATA] + words[OFFSET], expected[at + 3]
        if start % expected[at + 2] != 0 or headers.is_occupied(occupied, start, start + size):
            return False
        gradients[k] = start
        at += FIXED + 2 * ndim
    return True


@compiled
def is_there(function, array, like, words):
    """Tell whether an array is what it was: in the same memory, with the same strides."""
    if not has_kind(function, array, like, words) or words[DATA] + words[OFFSET] != like[0]:
        return False
    ndim = like[2] & 0xFFFFFFFF
    for axis in range(ndim):  # noqa: SIM110 (Numba has no generators here)
        if word_at(words[STRIDES] + 8 * axis) != like[3 + ndim + axis]:
            return False
    return True


@compiled
def is_like(function, array, like, words):
    """Tell whether an array has dtype, device and shape as expected, and lies in C order, without gaps."""
    if not has_kind(function, array, like, words):
        return False
    stride = 1
    for axis in range((like[2] & 0xFFFFFFFF) - 1, -1, -1):
        n = like[3 + axis]
        if n != 1 and word_at(words[STRIDES] + 8 * axis) != stride:
            return False
        stride *= n
    return words[DATA] != 0 or stride == 0


@compiled
def has_kind(function, array, like, words):
    """Have an array described; tell whether it has dtype, device and shape as expected."""
    if not described(function, array, words.ctypes.data) or words[DEVICE] != like[1] or words[KIND] != like[2]:
        return False
    ndim = like[2] & 0xFFFFFFFF
    if ndim > 0 and (words[SHAPE] == 0 or words[STRIDES] == 0):
        return False
    for axis in range(ndim):  # noqa: SIM110
        if word_at(words[SHAPE] + 8 * axis) != like[3 + axis]:
            return False
    return True


@compiled
def describe(function, array, words, row):
    """Write address, device, dtype with number of axes, shape and strides of an array; tell whether it worked."""
    if not described(function, array, words.ctypes.data):
        return False
    ndim = words[KIND] & 0xFFFFFFFF
    if len(row) != 3 + 2 * ndim or (ndim > 0 and (words[SHAPE] == 0 or words[STRIDES] == 0)):
        return False
    row[0], row[1], row[2] = words[DATA] + words[OFFSET], words[DEVICE], words[KIND]
    for axis in range(ndim):
        row[3 + axis] = word_at(words[SHAPE] + 8 * axis)
        row[3 + ndim + axis] = word_at(words[STRIDES] + 8 * axis)
    return True


def expected_of(function: int, keys: Sequence[object], arrays: Sequence[Array], views: Sequence[Host]) -> Any:
    """Return what `read` is to find of variables; None if the library does not describe one of them."""
    rows, words = [], np.empty(WORDS, np.int64)
    for key, array, view in zip(keys, arrays, views, strict=True):
        row = np.zeros(FIXED + 2 * view.ndim, np.int64)
        row[:4] = id(key), id(array), view.itemsize, view.nbytes
        if not describe(function, id(array), words, row[4:]):
            return None
        rows.append(row)
    return np.concatenate(rows)


@cache
def function_of(kind: type) -> int | None:
    """Return the address of the C function of DLPack that describes arrays of a type; None if there is none.

    It is given the addresses of an array and of a DLTensor, which it fills without a hold on the array's memory.
    """
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if capsule is None or not headers.is_known():
        return None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = pointer(capsule, b"dlpack_exchange_api")
    while table and ctypes.c_uint32.from_address(table).value != MAJOR:
        table = ctypes.c_void_p.from_address(table + 8).value  # that of an earlier version
    return ctypes.c_void_p.from_address(table + 40).value if table else None
