"""Launches, prepared for a whole step before the first of them is made."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import cupy

from rmsprop_cupy.captures import aside
from rmsprop_cupy.kept import Kept

Array = Any


class Launch(NamedTuple):
    """A kernel with all that it is given."""

    device: Any
    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any] = {}  # noqa: RUF012, never changed
    then: Callable[[], None] | None = None
    """What is to be called once it has been launched."""


def make(launches: Sequence[Launch], kept: Kept) -> None:
    """Make all launches, each in the current stream of its device, or none if a kernel can't be compiled.

    CuPy compiles a kernel when it is first launched with arrays of some layout. Where that could stop a step half
    way, kernels that are new are launched before, in a stream that only records.
    """
    for launch in launches if len(launches) > 1 else ():
        compiled_for = launch.device.id, launch.kernel, *map(_layout, launch.arguments)
        if compiled_for not in _compiled:
            _record(launch)
            _compiled.add(compiled_for)
    for launch in launches:
        with launch.device:
            launch.kernel(*launch.arguments, **launch.options)
            kept.used()
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
    with launch.device, aside() as stream:
        stream.begin_capture()
        try:
            launch.kernel(*launch.arguments, **launch.options)
        except BaseException:
            with suppress(cupy.cuda.runtime.CUDARuntimeError):  # of a capture that was spoilt; the cause is raised
                stream.end_capture()
            raise
        stream.end_capture()
