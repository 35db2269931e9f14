"""The order of the rows that sparse gradients list: a radix sort of all of them at once, which waits for nothing.

CuPy's own sort waits and allocates, once for each gradient. This one takes two launches for each eight bits of the
highest row, however many gradients there are.
"""

from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import cupy
import numpy as np

from rmsprop_cupy import source
from rmsprop_cupy.launches import Launch

COLUMNS = (
    "INDICES", "STRIDE", "KIND", "COUNT", "HEIGHT", "FIRST", "FIRST_TILE", "MISSES",
    "VALUES", "WIDTH", "WHICH", "SUMS", "FIRST_SUMS", "FIRST_BLOCK", "TABLES",
)  # fmt: skip
"""The columns of the table of gradients.

Of their indices: address, bytes from one to the next, and place of the dtype in `KINDS`; how many, and of how many
rows; where their elements start, and their tiles; where rows out of range are reported. The rest is for
`rmsprop_cupy.rows`: the values, how many a row has, the place in the step's list, where the sums of blocks lie,
where the blocks of threads for them and for rows start, and addresses of a variable and its slots.
"""

MOST_TABLES = 4
WORDS = len(COLUMNS) - 1 + MOST_TABLES
"""How many columns there are in all."""

KINDS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""The dtypes of indices."""

THREADS = 256
"""Threads of a block, as many as there are digits."""

TILE = 2_048
"""Elements of a gradient that a block of threads moves."""

DIGIT = 8
"""Bits that are sorted by at a time."""


def defined() -> str:
    """Return the columns as the compiler is to know them."""
    columns = dict(zip(COLUMNS, range(len(COLUMNS)), strict=True)) | {"COLUMNS": WORDS}
    return "\n".join(f"#define {name} {number}" for name, number in columns.items())


def code() -> str:
    """Return both kernels."""
    text = Template(files("rmsprop_cupy").joinpath("sort.cu").read_text())
    return text.substitute(preamble=source.PREAMBLE, threads=THREADS, tile=TILE, columns=defined())


@cache
def _kernel(name: str) -> Any:
    return cupy.RawModule(code=code()).get_function(name)


def launches(device: Any, table: Any, buffers: Any, counts: Any, sizes: tuple[int, int, int, int]) -> list[Launch]:
    """Return the launches that sort the elements of gradients; they end in the second buffer if `passes` are odd.

    Parameters
    ----------
    device : cupy.cuda.Device
    table : cupy.ndarray of uint64
    buffers : sequence of two cupy.ndarray of uint64
    counts : cupy.ndarray of uint32
        Memory to work in.
    sizes : tuple of int
        How many gradients and tiles there are, the bits of positions, and those of rows.
    """
    gradients, tiles, low, high = sizes
    made = []
    for k in range(passes(high)):
        given, moved = buffers[k % 2], buffers[1 - k % 2]
        shift = low + k * DIGIT
        counting = table, np.int32(gradients), given, counts, np.int32(low), np.int32(shift), np.int32(k == 0)
        moving = table, np.int32(gradients), given, moved, counts, np.int32(shift)
        for name, arguments in (("rmsprop_sort_count", counting), ("rmsprop_sort_move", moving)):
            made.append(Launch(device, _kernel(name), ((tiles,), (THREADS,), arguments)))
    return made


def passes(high: int) -> int:
    """Return how often elements are moved, given the bits of rows."""
    return max(-(-high // DIGIT), 1)
