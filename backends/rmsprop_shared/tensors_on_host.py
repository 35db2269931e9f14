# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
"""Tensors of PyTorch on the CPU, updated by the kernels for NumPy; and which backend others get."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

import rmsprop_array_api
import rmsprop_numba
from rmsprop.backends import Backend, Gradient, Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_shared import replays
from rmsprop_shared.tensors import TorchBackend, resolved
from rmsprop_shared.twins import Twin

if TYPE_CHECKING:
    from rmsprop_shared.tensors_on_cuda import TorchOnCUDA


class TorchOnHost(TorchBackend):
    """The backend for tensors of PyTorch, of which it updates those on the CPU."""

    def of(self, array: Any) -> Backend:
        """Return the backend for the device of a tensor: that for any library, unless there are kernels for it."""
        kind = array.device.type
        if kind == "cuda" and (on_cuda := _on_cuda()) is not None:
            return on_cuda
        return self if kind == "cpu" else rmsprop_array_api.backend

    def exported(self, array: Any) -> Any:
        """Return an array of NumPy in the memory of a tensor, of int16 for bfloat16."""
        plain = resolved(array)
        return (plain.view(torch.int16) if plain.dtype is torch.bfloat16 else plain).numpy()

    def planned(
        self, parameters: Sequence[Updatable], twins: list[Twin], views: Sequence[Gradient], hyper: Hyperparameters
    ) -> None:
        """Keep what takes the same step again, if all tensors are contiguous."""
        replays.keep(self, parameters, twins, views, torch.Tensor, hyper)


@cache
def _on_cuda() -> "TorchOnCUDA | None":
    """Return the backend for tensors on CUDA devices; None without CuPy, or where that finds no device."""
    try:
        import cupy
    except ImportError:
        return None
    if not cupy.cuda.is_available():
        return None
    from rmsprop_shared.tensors_on_cuda import backend as on_cuda

    return on_cuda


backend = TorchOnHost(rmsprop_numba.backend)
