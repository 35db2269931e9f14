"""Windows: the update of the elements that they cover, in one launch, without a sort."""

from typing import Any

import cupy
import numpy as np

from rmsprop.arrays.windows import Windows
from rmsprop.formula import Hyperparameters
from rmsprop_cupy import kernels
from rmsprop_cupy.kernels import Change
from rmsprop_cupy.launches import Launch, paired
from rmsprop_cupy.source import Variant
from rmsprop_cupy.streams import brought

THREADS = 256
"""Threads of a block, at most 1,024."""


def launch(
    gradient: Windows,
    shape: tuple[int, ...],
    variant: Variant,
    change: Change,
    given: tuple[Any, ...],
    hyper: Hyperparameters,
) -> Launch:
    """Return the launch for the elements that windows cover of a variable of a shape."""
    values, starts = paired(gradient.values, hyper), gradient.starts
    starts = brought(starts) if isinstance(starts, np.ndarray) else cupy.ascontiguousarray(starts)
    count, columns = len(values), values.size // gradient.values.size
    elements = gradient.values.size // count
    blocks = -(-elements * columns // THREADS)
    sizes = count, blocks, elements, columns, *gradient.values.shape[1:], *shape
    kernel = kernels.windows_kernel(variant, kernels.OPTIONS, len(shape), change)
    options = {"size": count * blocks * THREADS, "block_size": THREADS}
    return Launch(values.device, kernel, (values, starts, *sizes, *given), options)
