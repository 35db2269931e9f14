"""Updates that are launched again and again: a kernel that is given all it needs in one structure, by value.

To launch it takes a fraction of the time that an elementwise kernel with as many arguments does, and the structure
is copied at the launch: the next step may write to it at once.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.libraries import Array, Host
from rmsprop.formula import NEUTRAL, Hyperparameters, Multipliers, Numbers
from rmsprop_cupy import kernels, source
from rmsprop_cupy.kernels import Split
from rmsprop_cupy.launches import scalars
from rmsprop_cupy.lists import threads_of
from rmsprop_cupy.source import Variant

FILES = "".join(f"#include <cupy/{name}.cuh>\n" for name in ("complex", "float16", "bfloat16"))

Fields = list[tuple[str, str, str]]
"""Name, NumPy dtype and C type of what a structure holds."""


def declared(fields: Fields) -> str:
    """Return the structure as the compiler is to know it."""
    return f"struct Given {{ {' '.join(f'{kind} {name};' for name, _, kind in fields)} }};"


def structure(fields: Fields, given: Mapping[str, int]) -> Host:
    """Return the structure, with those of its members that are given."""
    made: Host = np.zeros(1, np.dtype([(name, dtype) for name, dtype, _ in fields], align=True))
    for name, number in given.items():
        made[name] = number
    return made


def plain(made: Host) -> Host:
    """Return a structure as kernels are given it: in a dtype without members, which CuPy would all look at."""
    return made.view(f"V{made.itemsize}")


def scalar_fields(variant: Variant) -> Fields:
    """Return the members for the scalars of a kernel, and for the arrays that hold others."""
    real = source.real_type(variant.dtype)
    arrays = ["factors"] * variant.factor + ["numbers"] * variant.multiplied
    scalars = [(name, source.CUPY_TYPE[real], real) for name in source.shared_scalars(variant)]
    return [*[(name, "u8", f"{real}*") for name in arrays], *scalars]


@np.errstate(all="ignore")  # of numbers that single precision can't hold
def write(made: Host, variant: Variant, numbers: Numbers, clipvalue: float | None) -> None:
    """Write the scalars of a step."""
    names = source.shared_scalars(variant)
    for name, number in zip(names, scalars(variant, numbers, clipvalue), strict=True):
        made[name] = number


def _fields(variant: Variant, is_list: bool) -> Fields:
    word, types = "unsigned long long*", kernels.slot_types(variant)
    slots = [(name, "u8", f"{source.storage_type(dtype)}*") for dtype, name in types]
    fields = [("gradients", "u8", word), ("table", "u8", word)] if is_list else [("g", "u8", slots[0][2]), *slots]
    fields += [("size", "i8", "long long"), ("which", "i8", "long long")]
    return fields + scalar_fields(variant)


def code_of(variant: Variant, split: Split | None) -> str:
    """Return the kernel for an array, or for many that are split, without gaps, of the statements in `kernels`."""
    fields = _fields(variant, split is not None)
    arrays = ["g", *[name for _, name in kernels.slot_types(variant)]]
    local = [f"const auto {name} = given.{name};" for name, *_ in fields if name not in arrays]
    if split is not None:
        body = kernels.list_body(variant, split)
    else:
        local.append(source.factor(variant, "which"))
        elements = [f"{'const ' if name == 'g' else ''}auto& {name} = given.{name}[i];" for name in arrays]
        body = "\n".join([*elements, kernels.array_body(variant)])
    lines = [
        FILES + source.PREAMBLE + source.VECTORS,
        declared(fields),
        'extern "C" __global__ void rmsprop_update(const Given given) {',
        "const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;",
        "if (i >= given.size) return;",
        *local,
        body,
        "}",
    ]
    return "\n".join(lines)


@cache
def _kernel(variant: Variant, split: Split | None, options: tuple[str, ...]) -> Any:
    return cupy.RawKernel(code_of(variant, split), "rmsprop_update", options=options)


class Update:
    """An update of one array, or of many of one dtype, on the current device.

    Parameters
    ----------
    variant : Variant
    size : int
        Threads: one for each element, or as many as a list needs.
    given : dict
        The members of the structure that stay: addresses, and ``which``.
    multipliers : Multipliers
        Those of the one array.

    Attributes
    ----------
    words : numpy.ndarray of uint64
        The structure; of one array, the first is the address of the gradient.
    call : tuple
        What `function` is called with.
    """

    def __init__(
        self, variant: Variant, size: int, given: dict[str, int], multipliers: Multipliers = NEUTRAL
    ) -> None:
        is_list = "table" in given
        self._structure = structure(_fields(variant, is_list), given | {"size": size})
        self.words: Any = self._structure.view(np.uint64)
        self._variant, self._multipliers = variant, multipliers
        split = kernels.SPLIT if is_list else None
        self.function = _kernel(variant, split, kernels.OPTIONS).kernel  # compiled now, for the current device
        self.call = (-(-size // kernels.BLOCK),), (kernels.BLOCK,), (plain(self._structure),)

    def write(self, hyper: Hyperparameters) -> None:
        """Write the numbers of a step, with the same terms in the formula as before."""
        write(self._structure, self._variant, hyper.numbers_of(self._multipliers), hyper.clipvalue)


def of_array(
    variant: Variant, arrays: Sequence[Array], factors: Array | None, which: int, multipliers: Multipliers
) -> Update:
    """Return the update of a variable and its slots, which has a place among all factors."""
    names = [name for _, name in kernels.slot_types(variant)]
    given = {name: array.data.ptr for name, array in zip(names, arrays, strict=True)}
    if factors is not None:
        given |= {"factors": factors.data.ptr, "which": which}
    return Update(variant, arrays[0].size, given, multipliers)


def of_list(
    variant: Variant, table: Array, addresses: Array, factors: Array | None, numbers: Array | None
) -> Update:
    """Return the update of the arrays in a table; see `rmsprop_cupy.lists`."""
    arrays = {"gradients": addresses, "table": table, "factors": factors, "numbers": numbers}
    given = {name: array.data.ptr for name, array in arrays.items() if array is not None}
    return Update(variant, threads_of(table), given)
