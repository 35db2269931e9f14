"""What is asked of arrays of every library: their namespace, their copy, their NumPy form."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from rmsprop.dtypes import COMPUTE

Array = Any
"""An array of any library that follows the Array API standard."""


def namespace(array: Array) -> ModuleType:
    """Return the Array API namespace of an array; ``TypeError`` if it is none."""
    return _compat().array_namespace(array)  # type: ignore[no-any-return]


def device(array: Array) -> Any:
    """Return the device that an array is on, in the terms of its library."""
    return _compat().device(array)


def on_device(array: Array) -> AbstractContextManager[Any]:
    """Return the context in which CuPy works on the device of an array; other libraries do so by themselves."""
    is_numpy = isinstance(array, np.ndarray)
    return nullcontext() if is_numpy or not _compat().is_cupy_array(array) else array.device


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


def refuse_traced(array: Any, what: str) -> None:
    """Raise ``TypeError`` for a value that stands for others while a function is traced or transformed."""
    tracer = _tracer_of(array)
    if tracer is not None:
        raise TypeError(
            f"{what} traced by {tracer}. What is done inside of a traced function is done once, while it is "
            f"traced: do it outside, with what the function returns."
        )


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


def is_updated_in_place(array: Array) -> bool:
    """Tell whether an array keeps its memory when its values change (NumPy, CuPy), or is replaced."""
    return isinstance(array, np.ndarray) or bool(_compat().is_cupy_array(array))


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Return a NumPy copy of an array, from whatever device it is on."""
    compat = _compat()
    if compat.is_cupy_array(array):
        with array.device:  # and in the current stream there
            return array.get()  # type: ignore[no-any-return]
    if compat.is_torch_array(array):
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
    return np.asarray(array).copy()  # not every library knows the argument `copy`


@cache
def _compat() -> ModuleType:
    """Import array_api_compat when it is first needed: it is the slower part of ``import rmsprop``."""
    import array_api_compat

    return array_api_compat
