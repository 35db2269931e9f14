"""Many checkpoints in a directory, of which the latest are kept."""

import os
import re
from contextlib import suppress
from typing import Any

from rmsprop.calls import call_of
from rmsprop.checkpoints import background
from rmsprop.checkpoints.background import Saving
from rmsprop.checkpoints.saving import save
from rmsprop.variables.nested import Tree

_NAME = re.compile(r"checkpoint-(\d{6,})-step-(\d+)\.safetensors")


class CheckpointManager:
    """Saves an optimizer every so many steps in a directory, and keeps the latest few checkpoints.

    They are numbered as they are saved. So the latest is the one that was saved last, also when the optimizer had
    gone back to an earlier step. Each optimizer needs a directory of its own; several managers may use the same.

    Parameters
    ----------
    directory : str or path
        Made when the first checkpoint is saved.
    max_to_keep : int or None, default 5
        The number of checkpoints from which on the oldest is removed; with None, all are kept.
    every : int, default 1
        Steps from one checkpoint to the next.

    Raises
    ------
    ValueError
        If `max_to_keep` or `every` is less than 1.

    Examples
    --------
    >>> import tempfile, numpy as np, rmsprop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manager = rmsprop.CheckpointManager(folder, max_to_keep=2, every=10)
    ...     opt, w = rmsprop.RMSprop(), np.ones(3)
    ...     for step in range(40):
    ...         _ = opt.apply_gradients([(w, w)])
    ...         _ = manager.save(opt, [w])
    ...     opt.restore(manager.latest, [w])
    ...     [path.rpartition("checkpoint-")[2] for path in manager.checkpoints]
    ['000003-step-30.safetensors', '000004-step-40.safetensors']
    """

    def __init__(self, directory: str | os.PathLike[str], max_to_keep: int | None = 5, every: int = 1) -> None:
        for name, number in (("max_to_keep", 1 if max_to_keep is None else max_to_keep), ("every", every)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number from 1 on; given {number!r}.")
        self.directory = os.path.abspath(os.fsdecode(directory))
        self.max_to_keep, self.every = max_to_keep, every
        self._seen: int | None = None

    def __repr__(self) -> str:
        given = {"directory": self.directory, "max_to_keep": self.max_to_keep, "every": self.every}
        return call_of(self, CheckpointManager, given)

    @property
    def checkpoints(self) -> list[str]:
        """The paths of all checkpoints that there are, the oldest first."""
        return [path for _, path in self._numbered() if os.path.isfile(path)]

    @property
    def latest(self) -> str | None:
        """The path of the checkpoint that was saved last; None if there is none."""
        return next(reversed(self.checkpoints), None)

    def save(self, optimizer: Any, variables: Tree = None, *, wait: bool = True) -> "str | Saving | None":
        """Save an optimizer, if it has come to, or past, a multiple of `every` since the last call.

        Parameters
        ----------
        optimizer : RMSprop
        variables, wait : as for `rmsprop.RMSprop.save`

        Returns
        -------
        str, Saving or None
            The path, or with ``wait=False`` what can be waited for; None if no checkpoint is due.

        Raises
        ------
        As `rmsprop.RMSprop.save`, and ``OSError`` if an old checkpoint can't be removed.
        """
        with optimizer._settings.state.lock:  # or else other threads might take steps while the file is written
            return self._save(optimizer, variables, wait)

    def _save(self, optimizer: Any, variables: Tree, wait: bool) -> "str | Saving | None":
        step = int(optimizer.iterations.array)
        is_due = step % self.every == 0 if self._seen is None else step // self.every != self._seen // self.every
        if not is_due:
            self._seen = step
            return None
        background.settle(optimizer._settings.state)  # whose file is to be counted
        os.makedirs(self.directory, exist_ok=True)
        number = max([number for number, _ in self._numbered()], default=0) + 1
        path = os.path.join(self.directory, f"checkpoint-{number:06}-step-{step}.safetensors")
        saving = save(optimizer._settings, optimizer.get_config, path, variables, wait, self._remove_old)
        self._seen = step
        return path if saving is None else saving

    def _numbered(self) -> list[tuple[int, str]]:
        """Return the numbers and paths of all checkpoints, in order."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        return sorted((int(match[1]), os.path.join(self.directory, match[0])) for match in matches)

    def _remove_old(self) -> None:
        if self.max_to_keep is not None:
            for path in self.checkpoints[: -self.max_to_keep]:
                with suppress(FileNotFoundError):  # another manager was faster
                    os.unlink(path)
