"""Questions to arrays of every library: their namespace, their device, a copy, their NumPy form."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from rmsprop.arrays.dtypes import COMPUTE

Array = Any
"""An array of any library that follows the Array API standard."""

Host = np.ndarray[Any, Any]
"""An array of NumPy."""

Namespace = Any
"""The functions of an array library, as the Array API standard has them."""

DType = Any
"""A dtype in the terms of its library."""


class Absent(NamedTuple):
    """What stands for an array that nobody held any more, so that it was let go."""

    shape: tuple[int, ...]
    dtype: DType
    device: Any


def namespace(array: Array) -> ModuleType:
    """Return the Array API namespace of an array; ``TypeError`` if it is none."""
    if type(array) is np.ndarray:  # by far the most frequent, and known without a look at all libraries
        return _numpy()
    kind = type(array)
    if kind not in _NAMESPACES:
        _NAMESPACES[kind] = _compat().array_namespace(array)
    return _NAMESPACES[kind]


_NAMESPACES: dict[type, ModuleType] = {}
"""The namespaces of the types of arrays seen so far: to ask a library takes longer than much of a step."""


def device(array: Array) -> Any:
    """Return the device that an array is on, in the terms of its library."""
    return "cpu" if isinstance(array, np.ndarray) else _compat().device(array)


def on_device(array: Array) -> AbstractContextManager[Any]:
    """Return the context in which CuPy works on the device of an array; other libraries do so by themselves."""
    is_numpy = isinstance(array, np.ndarray)
    return nullcontext() if is_numpy or not _compat().is_cupy_array(array) else array.device


@contextmanager
def unrecorded(array: Array) -> Iterator[None]:
    """Work on the device of an array, without PyTorch recording what becomes of one that it follows."""
    with on_device(array), import_module("torch").no_grad() if _is_torch(array) else nullcontext():
        yield


def _is_torch(array: Array) -> bool:
    return not isinstance(array, np.ndarray) and bool(_compat().is_torch_array(array))


def is_on_host(array: Array) -> bool:
    """Tell whether an array's numbers can be looked at without waiting for another device than the processor."""
    return isinstance(array, np.ndarray) or "cpu" in str(device(array)).lower()


def place_beside(array: Array) -> Any:
    """Return where what is used together with an array is to be made, as a library's ``device=`` takes it.

    JAX brings arrays that were given no place to wherever they are needed. It must choose by itself beside one
    that was given none, too, and beside one that is spread over several devices, as another shape may not be.
    """
    place = device(array)
    return None if hasattr(place, "device_set") or not getattr(array, "committed", True) else place


def as_beside(numbers: Any, array: Array, dtype: DType = None, copy: bool | None = None) -> Array:
    """Return numbers, or an array of NumPy, as an array of the library and on the device of another one."""
    if isinstance(numbers, np.ndarray) and ends_pytorch(numbers):
        numbers = numbers.copy()
    return namespace(array).asarray(numbers, dtype=dtype, device=place_beside(array), copy=copy)


def ends_pytorch(array: Host) -> bool:
    """Tell whether PyTorch ends the process when it copies an array.

    It takes complex128 to lie at multiples of 16 bytes, where NumPy is content with 8, as in the midst of files.
    """
    return array.itemsize == 16 and array.ctypes.data % 16 != 0


def copied(array: Array) -> Array:
    """Return a copy of an array in its library, on its device."""
    with unrecorded(array):
        return namespace(array).asarray(detached(array), copy=True)


def as_floats(array: Array) -> Array:
    """Return an array, in float64 if it holds integers of NumPy, as SciPy takes these."""
    is_whole = isinstance(array, np.ndarray) and array.dtype.kind in "iu"
    return array.astype(np.float64) if is_whole else array


def moved_beside(array: Array, other: Array) -> Array:
    """Return an array on the device of another one of its library and shape, or spread as that is."""
    place = device(other)
    return array if device(array) == place else _compat().to_device(array, place)


def shared(x: Any, to_write: bool = False) -> Any:
    """Return what only exports memory of a CUDA device, as arrays of numba.cuda do, as an array of CuPy in there.

    Anything else is returned as it is. ``TypeError`` if memory is `to_write` that its owner declares read-only.
    """
    if not hasattr(type(x), "__cuda_array_interface__") or is_array(x):
        return x
    if to_write and x.__cuda_array_interface__["data"][1]:
        raise TypeError("it exports its memory as read-only; expected an array that can be written to.")
    return import_module("cupy").asarray(x)


def is_array(x: object) -> bool:
    """Tell whether `x` is an array, but not one of NumPy's scalars, which only look like arrays."""
    if isinstance(x, np.ndarray):
        return True
    return not isinstance(x, np.generic | type) and bool(_compat().is_array_api_obj(x))


def refuse_subclass(array: object, what: str) -> None:
    """Raise ``TypeError`` for an array of NumPy that means more than its numbers."""
    if isinstance(array, np.ndarray) and type(array) is not np.ndarray and not isinstance(array, np.memmap):
        raise TypeError(
            f"{what} is a {type(array).__module__}.{type(array).__name__}, whose mask, unit or other meaning "
            f"would be lost; pass a plain array, such as its .view(numpy.ndarray)."
        )


def refuse_traced(array: Any, what: str, *of: object) -> None:
    """Raise ``TypeError`` for a value that stands for others while a function is traced or transformed.

    What it is may be a format, filled only then.
    """
    tracer = _tracer_of(array)
    if tracer is not None:
        raise TypeError(
            f"{what.format(*of)} traced by {tracer}. What is done inside of a traced function is done once, while "
            f"it is traced: do it outside, with what the function returns."
        )


def is_traced(array: Any) -> bool:
    """Tell whether a value stands for others while a function is traced or transformed."""
    return is_array(array) and _tracer_of(array) is not None


def _tracer_of(array: Any) -> str | None:
    trace = getattr(array, "_trace", None)
    if isinstance(trace, int):  # autograd's, where a constant has a negative one
        return "a GradientTape or autograd (autograd.tracer.getval makes it plain)" if trace >= 0 else None
    if trace is not None and _compat().is_jax_array(array):  # only its tracers have the attribute
        return "jax.jit, jax.grad or another transformation of JAX"
    if _compat().is_torch_array(array):
        functorch: Any = import_module("torch._C._functorch")
        is_inside = functorch.peek_interpreter_stack() is not None or functorch.is_functorch_wrapped_tensor(array)
        return "torch.vmap, torch.func.grad or another transformation of torch.func" if is_inside else None
    return None


def checked_numbers(value: Any, what: str) -> Any:
    """Return an array, or what NumPy can make one of, if it is plain and consists of numbers.

    Raises
    ------
    TypeError
    """
    refuse_subclass(value, what)
    try:
        array = value if is_array(value) else np.asarray(value)
    except ValueError:
        raise TypeError(
            f"{what} takes an array or numbers, not lists of different lengths; given {value!r}."
        ) from None
    if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc" and array.dtype.name not in COMPUTE:
        raise TypeError(f"{what} takes an array or numbers; given {value!r}.")
    return array


def has_strides(array: Array) -> bool:
    """Tell whether an array is one of NumPy or CuPy, which have strides in bytes, views and copies."""
    return isinstance(array, np.ndarray) or bool(_compat().is_cupy_array(array))


def detached(array: Array) -> Array:
    """Return an array that PyTorch does not follow: it would record what is computed from any other."""
    return array.detach() if getattr(array, "requires_grad", False) else array


def to_numpy(array: Array, pinned: bool = False) -> Host:
    """Return a NumPy copy of an array, from whatever device it is on.

    Pinned memory, where a GPU writes without a detour, is for large copies: CuPy keeps it for the next ones.
    """
    compat = _compat()
    if compat.is_cupy_array(array):
        with array.device:  # and in the current stream there
            out = import_module("cupyx").empty_pinned(array.shape, array.dtype) if pinned else None
            return array.get(out=out)  # type: ignore[no-any-return]
    if compat.is_torch_array(array):
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
    elif type(array).__module__.startswith("array_api_strict."):  # which converts arrays of one device only
        array = array.to_device(namespace(array).Device("CPU_DEVICE"))
    return np.asarray(array).copy()  # not every library knows the argument `copy`


def own(array: Array) -> Array:
    """Return what was unpickled, or a copy of it if it can't be written to or is in memory that others may have.

    Joblib maps arrays from files that are read-only; arrays unpickled by protocol 5 are views of the buffers that
    came with the pickle, which may be unpickled again. The same array gets the same copy, as long as it is there.
    """
    if not isinstance(array, np.ndarray) or (array.flags.writeable and _is_alone(array)):
        return array
    kept = _copies.get(id(array))
    if kept is None or kept[0]() is not array:
        _copies[id(array)] = kept = ref(array, partial(_forget, id(array))), np.array(array, order="K")
    return kept[1]


_copies: dict[int, tuple["ref[Any]", Array]] = {}
"""Arrays that `own` has copied, with their copies, by their identity."""


def _forget(identity: int, _: object) -> None:
    _copies.pop(identity, None)


def _is_alone(array: Host) -> bool:
    """Tell whether an array has its memory for itself: `pickle` gives it bytes, up to protocol 4."""
    base: object = array.base
    return array.flags.owndata or isinstance(base, bytes)


@cache
def _numpy() -> ModuleType:
    from array_api_compat import numpy

    return numpy


@cache
def _compat() -> ModuleType:
    """Import array_api_compat when it is first needed: it is the slower part of ``import rmsprop``."""
    import array_api_compat

    return array_api_compat
