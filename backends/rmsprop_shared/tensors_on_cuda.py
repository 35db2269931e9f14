# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
"""Tensors of PyTorch on CUDA devices, updated by the kernels for CuPy in PyTorch's current stream."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cupy
import torch

import rmsprop_cupy
from rmsprop.arrays.libraries import Array
from rmsprop.backends import Factors, Gradient, Updatable
from rmsprop.formula import Hyperparameters
from rmsprop_shared.tensors import TorchBackend, resolved


class TorchOnCUDA(TorchBackend):
    """The backend for tensors of PyTorch on CUDA devices."""

    makes_factors = True
    reports_misses = True
    device_type = "cuda"

    def exported(self, array: Any) -> Array:
        """Return an array of CuPy in the memory of a tensor."""
        plain = resolved(array)
        with cupy.cuda.Device(plain.device.index):
            if plain.dtype is not torch.bfloat16:
                return cupy.asarray(plain)
            import ml_dtypes

            return cupy.asarray(plain.view(torch.int16)).view(ml_dtypes.bfloat16)

    @contextmanager
    def working(self, array: Any) -> Iterator[None]:
        """Let CuPy work on the device of a tensor, in the stream that PyTorch uses there.

        The device alone waits for what PyTorch computed before, and what it will compute waits for the step.
        """
        index = array.device.index
        with cupy.cuda.Device(index):
            # `with stream` would not go back to a stream that has been made the current one by `use`.
            before = cupy.cuda.get_current_stream()
            cupy.cuda.Stream.from_external(_Exported(torch.cuda.current_stream(index).cuda_stream)).use()
            try:
                yield
            finally:
                before.use()

    def squared_norms(self, gradients: Sequence[Gradient], hyper: Hyperparameters, scale: float = 1.0) -> Array:
        """Return the sum of ``|scale * g|**2`` of each gradient, after clipping by value."""
        with self.working(_first_of(gradients)):
            return super().squared_norms(gradients, hyper, scale)

    def first_nonfinite(self, gradients: Sequence[Gradient]) -> int | None:
        """Return the position of the first gradient with a NaN or an infinity, or None."""
        with self.working(_first_of(gradients)):
            return super().first_nonfinite(gradients)

    def factors(
        self, parameters: Sequence[Updatable], gradients: Sequence[Gradient], hyper: Hyperparameters
    ) -> Factors:
        """Return the factors of gradients, and let the device decide on the step."""
        with self.working(parameters[0].variable.array):
            return self.through.factors(self.twins(parameters), [self.viewed(g) for g in gradients], hyper)

    def check_step(
        self, parameters: Sequence[Updatable], gradients: Sequence[Gradient], positions: Sequence[int]
    ) -> bool:
        """Raise errors about memory and devices; tell whether the step is to be captured."""
        super().check_step(parameters, gradients, positions)
        with self.working(parameters[0].variable.array):
            twins = self.twins(parameters)
            return self.through.check_step(twins, [self.viewed(g) for g in gradients], positions)

    def report_misses(self, parameter: Updatable) -> None:
        """Raise ``ValueError`` if rows or windows out of range were found in earlier gradients of a variable."""
        with self.working(parameter.variable.array):
            self.through.report_misses(parameter)


class _Exported:
    """A stream as others are told of it."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._pointer


def _first_of(gradients: Sequence[Gradient]) -> Any:
    first = gradients[0]
    return getattr(first, "values", first) if not isinstance(first, torch.Tensor) else first


backend = TorchOnCUDA(rmsprop_cupy.backend)
