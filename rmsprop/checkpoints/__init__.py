"""Checkpoints: the state of an optimizer in a file, written all or not at all, and read with suspicion.

`rmsprop.RMSprop.save`, `load` and `restore` are made of these modules, the later of the earlier ones:

- `names`, `settings`, `numbers`: what variables are called, optimizers told, and remembered beside arrays
- `tensors`, `layout`: arrays as bytes, and the file around them, with its digest
- `atomic`, `background`: files that are replaced whole, and saves that go on beside the steps
- `saving`, `records`, `restoring`: from an optimizer to a file, and back
- `manager`: many checkpoints in a directory
"""

from rmsprop.checkpoints.errors import CheckpointError
from rmsprop.checkpoints.manager import CheckpointManager

__all__ = ["CheckpointError", "CheckpointManager"]


def __dir__() -> list[str]:
    return __all__
