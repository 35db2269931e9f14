"""Launches of kernels, with all that they are given, prepared for a whole step before the first is made."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import cupy
import numpy as np
from cupy.lib.stride_tricks import as_strided

from rmsprop.arrays.dtypes import name_of
from rmsprop.arrays.libraries import Array
from rmsprop.backends import Updatable
from rmsprop.formula import OPTIONAL, Hyperparameters, Numbers
from rmsprop_cupy.source import SCALARS, Variant, shared_scalars
from rmsprop_cupy.streams import aside


class Launch(NamedTuple):
    """A kernel with all that it is given."""

    device: Any
    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012, never changed
    then: Callable[[], None] | None = None
    """What is to be called once it has been launched."""
    alive: Any = None
    """What the kernel is only given the address of."""


def slots(parameter: Updatable, hyper: Hyperparameters) -> list[Array]:
    """Return a variable and those of its slots that a kernel updates, in the kernel's order."""
    return [parameter.variable.array, *(parameter.slots[name].array for name in hyper.slots)]


def variant_of(
    array: Array, hyper: Hyperparameters, factors: Array | None, captured: object, multiplied: bool = False
) -> Variant:
    """Return what the kernel for an array is to be compiled for."""
    numbers = hyper.numbers_of()
    return Variant(
        dtype=name_of(array.dtype),
        momentum=hyper.momentum is not None,
        centered=hyper.centered,
        clipvalue=hyper.clipvalue is not None,
        factor=factors is not None,
        captured=captured is not None,
        guarded=hyper.nonfinite == "skip",
        terms=tuple([name for name in OPTIONAL if getattr(numbers, name) is not None]),
        average=hyper.ema_momentum is not None,
        multiplied=multiplied,
    )


def scalars(variant: Variant, numbers: Numbers, clipvalue: float | None) -> tuple[float, ...]:
    """Return the scalars that a kernel is given one by one."""
    known = dict(zip(SCALARS, (*numbers, clipvalue), strict=True))
    return tuple([known[name] or 0.0 for name in shared_scalars(variant)])


def paired(array: Array, hyper: Hyperparameters) -> Array:
    """Return a complex array as pairs of reals, if they count as such; any other as it is."""
    if not hyper.complex_as_real or array.dtype.kind != "c":
        return array
    half = array.itemsize // 2
    return as_strided(array.real, (*array.shape, 2), (*array.strides, half))


def make(launches: Sequence[Launch], used: Callable[[], None]) -> None:
    """Make all launches, each in the current stream of its device, or none if a kernel can't be compiled.

    CuPy compiles a kernel when it is first launched with arrays of some layout. Where that could stop a step half
    way, kernels that are new are launched before, in a stream that only records. After each launch that is made,
    `used` is called.
    """
    for launch in launches if len(launches) > 1 else ():
        compiled_for = launch.device.id, launch.kernel, *map(_layout, launch.arguments)
        if compiled_for not in _compiled:
            _record(launch)
            _compiled.add(compiled_for)
    for launch in launches:
        with launch.device, np.errstate(all="ignore"):  # of numbers that single precision can't hold
            launch.kernel(*launch.arguments, **launch.options)
            used()
            if launch.then is not None:
                launch.then()


_compiled: set[Any] = set()


def _layout(argument: Any) -> Any:
    """Return all that the compiled kernel depends on of an argument, besides the kernel itself."""
    if not isinstance(argument, cupy.ndarray):
        return None
    is_c = argument.flags.c_contiguous
    return argument.nbytes >> 31 == 0, is_c or (argument.shape, argument.strides)


def _record(launch: Launch) -> None:
    """Launch a kernel without running it."""
    with launch.device, np.errstate(all="ignore"), aside() as stream:
        stream.begin_capture()
        try:
            launch.kernel(*launch.arguments, **launch.options)
        except BaseException:
            with suppress(cupy.cuda.runtime.CUDARuntimeError):  # of a capture that was spoilt; the cause is raised
                stream.end_capture()
            raise
        stream.end_capture()
