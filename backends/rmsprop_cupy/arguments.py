"""What the kernels are given: arrays in order, scalars in order, and the variant to compile."""

from typing import Any

from cupy.lib.stride_tricks import as_strided

from rmsprop.arrays import dtypes
from rmsprop.backends import Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_cupy.source import Variant

Array = Any


def slots(parameter: Updatable, hyper: Hyperparameters) -> list[Array]:
    """Return a variable and those of its slots that a kernel updates, in the kernel's order."""
    return [parameter.variable.array, *(parameter.slots[name].array for name in hyper.slots)]


def variant_of(array: Array, hyper: Hyperparameters, factors: Array | None, captured: object) -> Variant:
    """Return what the kernel for an array is to be compiled for."""
    name = dtypes.name_of(array.dtype)
    has_momentum, has_limit = hyper.momentum is not None, hyper.clipvalue is not None
    is_guarded = hyper.nonfinite == "skip"
    return Variant(
        name, has_momentum, hyper.centered, has_limit, factors is not None, captured is not None, is_guarded
    )


def numbers(hyper: Hyperparameters) -> tuple[float, ...]:
    """Return the scalars of the kernels, in the order of `source.SCALARS`."""
    return (*hyper.numbers, hyper.clipvalue or 0.0)


def paired(array: Array, hyper: Hyperparameters) -> Array:
    """Return a complex array as pairs of reals, if they count as such; any other as it is."""
    if not hyper.complex_as_real or array.dtype.kind != "c":
        return array
    half = array.itemsize // 2
    return as_strided(array.real, (*array.shape, 2), (*array.strides, half))
