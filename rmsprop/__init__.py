"""The RMSprop optimizer for NumPy, CuPy and every Array API library, on fused kernels."""

from typing import TYPE_CHECKING, Any

from rmsprop import schedules
from rmsprop.indexed_slices import IndexedSlices
from rmsprop.loss_scale import LossScale
from rmsprop.optimizer import RMSprop
from rmsprop.tape import GradientTape
from rmsprop.torch_tape import TorchTape
from rmsprop.variable import Variable

if TYPE_CHECKING:
    from rmsprop import distribute

__all__ = [
    "GradientTape",
    "IndexedSlices",
    "LossScale",
    "RMSprop",
    "TorchTape",
    "Variable",
    "distribute",
    "schedules",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "distribute":  # imported on first use
        raise AttributeError(f"module 'rmsprop' has no attribute {name!r}")
    from importlib import import_module

    return import_module("rmsprop.distribute")
