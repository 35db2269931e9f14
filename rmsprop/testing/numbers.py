"""Numbers that the conformance suite takes steps with, clipped as documented, and how near results must come."""

from typing import Any

import numpy as np
import pytest

from rmsprop.arrays.libraries import Host
from rmsprop.variables.variable import Variable


def moved(array: Host, offset: int) -> Host:
    """Return a copy that begins some bytes after where NumPy would have it begin."""
    copy = np.zeros(array.nbytes + offset, np.uint8)[offset:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def draw(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Host:
    """Return random numbers in the form of NumPy."""
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        numbers = numbers + 1j * rng.standard_normal(shape)
    return np.asarray(numbers).astype(_numpy_dtype(dtype))


def _numpy_dtype(dtype: str) -> Any:
    """Return the dtype of a name."""
    if dtype == "bfloat16":
        return pytest.importorskip("ml_dtypes").bfloat16
    return np.dtype(dtype)


def wide(variable: Variable) -> Host:
    """Return the numbers of a variable in double precision."""
    array = variable.numpy()
    return array.astype(complex if array.dtype.kind == "c" else float)


def tolerance(dtype: str) -> float:
    """Return how far results may be from what double precision gives."""
    return {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-6, "complex64": 2e-6}.get(dtype, 4e-15)


def clip_values(values: Host, limit: float) -> Host:
    """Return gradients clipped by value, as `RMSprop` documents it."""
    wide = values.astype(complex if values.dtype.kind == "c" else float)
    modulus = np.abs(wide)
    return wide * np.where(modulus > limit, limit / np.where(modulus == 0, 1, modulus), 1)


def clipped(
    gradients: list[Host],
    clipvalue: float = np.inf,
    clipnorm: float = np.inf,
    global_clipnorm: float = np.inf,
) -> list[Host]:
    """Clip as `RMSprop` documents it."""
    gradients = [clip_values(g, clipvalue) for g in gradients]
    gradients = [g * min(1.0, clipnorm / float(np.linalg.norm(g))) for g in gradients]
    norm = float(np.sqrt(sum(np.linalg.norm(g) ** 2 for g in gradients)))
    return [g * (min(1.0, global_clipnorm / norm) if norm else 1.0) for g in gradients]
