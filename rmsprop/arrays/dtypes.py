"""The rules on dtypes: what may be optimised, what it is computed in, what its slots hold."""

from functools import lru_cache
from typing import Any

COMPUTE = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
}
"""Dtype of the arithmetic for each dtype a variable may have; halves would underflow when squared."""

_REAL = {"complex64": "float32", "complex128": "float64"}


@lru_cache(100, typed=True)  # dtypes of several libraries may have the same hash, and refuse to be compared
def name_of(dtype: Any) -> str:
    """Return the name that all array libraries share, such as ``"float32"``, of a library's own dtype."""
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).rpartition(".")[2]


def is_complex(name: str) -> bool:
    """Tell whether a dtype is complex."""
    return name in _REAL


def real(name: str) -> str:
    """Return the dtype of the real part of numbers of a dtype."""
    return _REAL.get(name, name)


def castable(gradient: str, variable: str) -> bool:
    """Tell whether a gradient of one dtype may be cast to the dtype of its variable."""
    return gradient in COMPUTE and (is_complex(variable) or not is_complex(gradient))
