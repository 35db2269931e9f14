"""Work that goes on beside the steps, and whose errors are not lost."""

import atexit
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class Saving:
    """A save that goes on in a thread, which the interpreter waits for at its end.

    Examples
    --------
    >>> import os, tempfile, numpy as np, rmsprop
    >>> opt, w = rmsprop.RMSprop(), np.ones(3)
    >>> _ = opt.apply_gradients([(w, w)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saving = opt.save(os.path.join(folder, "w.safetensors"), [w], wait=False)
    ...     _ = opt.apply_gradients([(w, w)])    # the file is not to know of it
    ...     saving.wait()
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._error: BaseException | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._run, args=(work,), name="rmsprop.save")
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
            _failed.append(self)
        self._is_over = True

    def wait(self) -> None:
        """Wait until the file is complete.

        Raises
        ------
        Exception
            What the save raised, the first time that it is waited for.
        RuntimeError
            In a process that was forked off meanwhile, where it can't be waited for.
        """
        self._thread.join()
        if not self._is_over:
            raise RuntimeError("the save goes on in the process that began it, not in this one, its forked child.")
        error, self._error = self._error, None
        if error is not None:
            _failed.remove(self)
            error.add_note("It was raised by a save in the background.")
            raise error


_failed: list[Saving] = []
"""Those whose error nobody has been told."""

_latest: WeakKeyDictionary[Any, Saving] = WeakKeyDictionary()
"""The last save of each optimizer."""


def start(optimizer: Any, work: Callable[[], None]) -> Saving:
    """Start a save of an optimizer."""
    _latest[optimizer] = saving = Saving(work)
    return saving


def settle(optimizer: Any) -> None:
    """Wait for the last save of an optimizer, and raise its error unless someone was told."""
    saving = _latest.pop(optimizer, None)
    if saving is not None:
        saving.wait()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_latest.clear)


@atexit.register
def _tell() -> None:
    for saving in _failed:
        print("rmsprop: a save in the background failed, and nobody waited for it:", file=sys.stderr)
        traceback.print_exception(saving._error)
