"""Files that are replaced whole: whoever reads one finds what it was or what it is to be, whatever happens.

The new file is written beside the old one, under a name of its own, and takes its place when all of it is on the
disk. As long as its writer lives, it is locked; one that is not locked was left by a process that has died, and is
removed when another one is written in the same directory.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from rmsprop.checkpoints.helpers import Helpers, Task

try:
    import fcntl
except ImportError:  # on Windows, which does not remove files that are open
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".rmsprop-unfinished"
EARLY = 1 << 24
"""Bytes after which they are brought to the disk while the next ones are written."""


class EarlySync:
    """What brings a file to the disk while it is written, so that there is little left to do at its end.

    Parameters
    ----------
    file : binary file
    helpers : Helpers
    """

    def __init__(self, file: BinaryIO, helpers: Helpers) -> None:
        self._file, self._helpers, self._count = file, helpers, 0
        self._task: Task | None = None

    def note(self, count: int) -> None:
        """Note how many bytes have been written since the last call."""
        self._count += count
        if self._count >= EARLY:
            self.finish()  # the system tells an error of the disk only once, to whoever asks first
            self._count, self._task = 0, self._helpers.begin(os.fsync, self._file.fileno())

    def finish(self) -> None:
        """Wait for the disk; ``OSError`` if it has failed."""
        task, self._task = self._task, None
        if task is not None:
            task()


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """Give a file to write, which takes the place of `path` once it is complete, and is gone if it never is.

    Its permissions are those of the file that it replaces, or those that ``open()`` would give. A link stays, and
    what it points to is replaced.

    Raises
    ------
    OSError
        If it can't be written, or is there and no regular file; `path` is as it was then.
    """
    given, path = path, os.path.realpath(path)
    folder = os.path.dirname(path)
    try:
        _check_replaceable(given)  # of /dev/stdout, the real path may be no path
        sweep(folder)
        with _unfinished(folder) as file:
            _take_mode(file, path)
            yield file
            _complete(file, path)
        _sync(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, given) from error  # which names the file that the user knows


def _check_replaceable(path: str) -> None:
    """Raise ``OSError`` if there is anything but a file, such as a pipe, of which other programs hold the ends."""
    with suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "a checkpoint can't replace what is no regular file")


@contextmanager
def _unfinished(folder: str) -> Iterator[BinaryIO]:
    """Give a new, locked file, which is removed if there is an error."""
    file = _locked(folder)
    try:
        with file:
            yield file
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(file.name)
        raise


def _locked(folder: str) -> BinaryIO:
    while True:
        file = open(os.path.join(folder, f".{secrets.token_hex(8)}{SUFFIX}"), "xb")  # noqa: SIM115
        _lock(file)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process has removed it before it was locked


def _take_mode(file: BinaryIO, path: str) -> None:
    """Give a file the permissions of the one that it is to replace, if there is one."""
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if mode != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
            os.chmod(file.name, mode)


def _lock(file: BinaryIO) -> None:
    if fcntl is not None:
        with suppress(OSError):  # file systems without locks, where nothing is ever removed
            fcntl.flock(file, fcntl.LOCK_EX)


def _complete(file: BinaryIO, path: str) -> None:
    file.flush()
    os.fsync(file.fileno())
    if fcntl is None:
        file.close()
    os.replace(file.name, path)


def _sync(folder: str) -> None:
    """Let the disk know the new name, too."""
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that do not do so for directories
            raise
    finally:
        os.close(descriptor)


def sweep(folder: str) -> None:
    """Remove the unfinished files of processes that have died."""
    with os.scandir(folder) as entries:
        left = [e.path for e in entries if e.name.endswith(SUFFIX) and e.is_file(follow_symlinks=False)]
    for path in left:
        with suppress(OSError):  # it is in use, or gone, or another user's
            _remove_unlocked(path)


def _remove_unlocked(path: str) -> None:
    with open(path, "r+b") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
    if fcntl is None:
        os.unlink(path)
