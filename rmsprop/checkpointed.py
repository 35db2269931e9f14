"""The methods by which an optimizer is saved to a file and restored from one."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rmsprop.locks import locked
from rmsprop.parameters import Parameter

if TYPE_CHECKING:
    from rmsprop.checkpoints.background import Saving

Path = str | os.PathLike[str]


class Checkpointed:
    """What `rmsprop.checkpoints` offers, as methods; a base of `rmsprop.RMSprop`."""

    @locked
    def save(self, path: Path, variables: Any = None, *, wait: bool = True) -> "Saving | None":
        """Save state and settings to a file and, if they are given, the variables themselves.

        The file is replaced in one piece, when all of it is on the disk: whatever happens, `path` is what it was
        or what it is to be. It has the format of safetensors, which other programs read, and ends with a digest.

        Parameters
        ----------
        path : str or path
            Directories on the way must exist. Of a link, what it points to is replaced.
        variables : array or Variable, or nested list, tuple or dict of these, optional
            All that the optimizer has state of, and others if you like. Their names are the keys of dicts and the
            positions in lists, joined by ``/``; in a list, a `Variable` goes by its own name. Without, only state
            is saved, of plain arrays in the order in which the optimizer first saw them.
        wait : bool, default True
            Whether to return when the file is complete. If not, it is written in the background from a copy of
            everything, while steps go on.

        Returns
        -------
        Saving or None
            With ``wait=False``, what has a method ``wait()``, which raises what the save raises. Else that is
            raised by the next `save` or `restore` or, if there is none, printed when the program ends. Both, and
            the end, wait for it.

        Raises
        ------
        OSError
            If the file can't be written, or `path` is a FIFO, a device or a socket; it is as it was then.
        TypeError
            If `variables` holds something else, or settings are not what JSON can hold.
        ValueError
            If a variable with state is missing, occurs twice, or a GPU found rows out of range in an earlier step.
        RuntimeError
            If the state was loaded, and no variables have been given to it yet.

        Notes
        -----
        A callable as a setting, and a schedule without ``get_config``, are code, which is not saved: such
        optimizers can be restored, but not loaded. On several replicas, all ranks call this, and rank 0 writes.

        Examples
        --------
        >>> import os, tempfile, numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(rho=0.5), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, 2.0]), w)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "w.safetensors")
        ...     opt.save(path, {"w": w})
        ...     again, v = rmsprop.RMSprop(rho=0.5), np.zeros(2)
        ...     again.restore(path, {"w": v})
        >>> bool((v == w).all()), again.get_weights()
        (True, [array(1), array([0.5, 2. ])])
        """
        from rmsprop.checkpoints.saving import save

        return save(self, path, variables, wait)

    @classmethod
    def load(cls, path: Path, custom_objects: Mapping[str, type] | None = None) -> Self:
        """Return a new optimizer with the settings and the state in a file.

        The state waits for its variables, whose own values are left alone: the first `build` or `apply_gradients`
        must have all of them, under the names that they were saved under. `restore`, in place of these, brings
        back the values, too.

        Parameters
        ----------
        path : str or path
        custom_objects : mapping of str to class, optional
            Classes of your own schedules, by name.

        Raises
        ------
        CheckpointError
            If the file is no sound checkpoint, or the settings were in part code, see `save`.
        OSError
            If it can't be read.

        Examples
        --------
        >>> import os, tempfile, numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(rho=0.5), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, 2.0]), w)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "opt.safetensors")
        ...     opt.save(path)
        ...     again = rmsprop.RMSprop.load(path)
        >>> again.rho, again.get_weights()
        (0.5, [array(1), array([0.5, 2. ])])
        >>> again.build([w])
        >>> again.get_slot(w, "rms").numpy()
        array([0.5, 2. ])
        """
        from rmsprop.checkpoints.restoring import load

        optimizer: Self = load(cls, path, custom_objects)
        return optimizer

    @locked
    def restore(self, path: Path, variables: Any) -> None:
        """Bring the state, and the values of variables if they were saved, back from a file.

        Parameters
        ----------
        path : str or path
        variables : array or Variable, or nested list, tuple or dict of these
            All that were saved, under the same names, see `save`.

        Raises
        ------
        CheckpointError
            If the file is no sound checkpoint, or names, shapes, dtypes or settings are not those that were saved.
        OSError
            If it can't be read.
        TypeError, ValueError
            If a variable can't be optimised or written to.

        In case of an error, nothing has changed.

        Examples
        --------
        See `save`.
        """
        from rmsprop.checkpoints.restoring import restore

        restore(self, path, variables)

    def _claim(self, parameters: Sequence[Parameter], variables: Any) -> None:
        from rmsprop.checkpoints.restoring import claim

        claim(self, parameters, variables)
