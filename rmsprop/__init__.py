"""The RMSprop optimizer for NumPy, CuPy and every Array API library, on fused kernels."""

from typing import TYPE_CHECKING, Any

from rmsprop import schedules
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.windows import Windows
from rmsprop.optimizer import RMSprop
from rmsprop.state.loss_scale import LossScale
from rmsprop.tapes.autograd_tape import GradientTape
from rmsprop.tapes.torch_tape import TorchTape
from rmsprop.variables.variable import Variable

if TYPE_CHECKING:
    from rmsprop import conventions, distribute, functional
    from rmsprop.checkpoints import CheckpointError, CheckpointManager
    from rmsprop.gradient_checks import check_gradients
    from rmsprop.minimization.minimize import minimize
    from rmsprop.minimization.result import OptimizeResult

__all__ = [
    "CheckpointError",
    "CheckpointManager",
    "GradientTape",
    "IndexedSlices",
    "LossScale",
    "OptimizeResult",
    "RMSprop",
    "TorchTape",
    "Variable",
    "Windows",
    "check_gradients",
    "conventions",
    "distribute",
    "functional",
    "minimize",
    "schedules",
]
__version__ = "0.1.0"


_LATER = {
    "CheckpointError": "rmsprop.checkpoints",
    "CheckpointManager": "rmsprop.checkpoints",
    "OptimizeResult": "rmsprop.minimization.result",
    "check_gradients": "rmsprop.gradient_checks",
    "minimize": "rmsprop.minimization.minimize",
}
"""What not every program needs, and where it is."""


def __getattr__(name: str) -> Any:
    """Import what not every program needs, on its first use."""
    from importlib import import_module

    if name in ("conventions", "distribute", "functional"):
        return import_module(f"rmsprop.{name}")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'rmsprop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
