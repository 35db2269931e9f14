"""A process beside each rank that tells if the rank ends without a word: killed, crashed or by ``os._exit``.

The launcher ends the job then, so fast that no other rank can speak. This file is run as it is, and imports
nothing of the package.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence

FAREWELL = b"."
PATIENCE = 2.0
"""Seconds in which a process that has closed its files must be gone."""
COURTESY = 0.3
"""Seconds in which the guardian of the rank that ended first may speak."""


class Guardian:
    """The process that watches over this rank; see `farewell`.

    Parameters
    ----------
    who : str
        How messages call this rank.
    claim : str
        Path of a file that does not exist. The first of the guardians of a machine to make it may speak: those of
        ranks that the launcher has killed in consequence would only hide the reason.
    others : sequence of int
        The processes of the other ranks of this machine.
    """

    def __init__(self, who: str, claim: str, others: Sequence[int]) -> None:
        command = [sys.executable, "-I", "-S", __file__, who, claim, *map(str, (os.getpid(), *others))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=sys.__stderr__, start_new_session=True
        )

    def farewell(self, is_failing: bool = False) -> None:
        """Let the guardian go; if this rank is about to end the job, those of the others will keep silent."""
        pipe, self._process.stdin = self._process.stdin, None
        if pipe is not None:
            pipe.write(FAREWELL + b"!" * is_failing)
            pipe.close()
            self._process.wait()


def watch(who: str, claim: str, *processes: str) -> None:
    """Wait for the rank, the first of some processes, to end, and speak if it has not said farewell."""
    ends = Ends([int(process) for process in processes])
    said = b""
    while piece := os.read(0, 16):
        said += piece
    if said == FAREWELL:
        return
    if not said and not ends.begin_with_own():
        time.sleep(COURTESY)
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if not said:
        reason = "ended without a word: it was killed, has crashed, or has called os._exit"
        os.write(1, f"rmsprop: {who} {reason}.\n".encode())
    if os.fork() == 0:  # nobody need wait until all others have gone
        os.close(1)
        os.close(2)
        time.sleep(3)
        os.unlink(claim)


class Ends:
    """The order in which processes end, kept by the kernel even if this process is late; on Linux.

    Parameters
    ----------
    processes : list of int
        The first is one's own.
    """

    def __init__(self, processes: list[int]) -> None:
        self._descriptors: list[int] = []
        try:
            self._list = select.epoll()
            self._descriptors += [os.pidfd_open(process) for process in processes]
        except (AttributeError, OSError):  # not Linux, or too old
            return
        for descriptor in self._descriptors:
            self._list.register(descriptor, select.EPOLLIN)

    def begin_with_own(self) -> bool:
        """Tell whether one's own process, which is ending, is the first; if that can't be known, that it is."""
        end = time.monotonic() + PATIENCE
        while self._descriptors and time.monotonic() < end:
            ended = [descriptor for descriptor, _ in self._list.poll(0.1)]
            if self._descriptors[0] in ended:
                return ended[0] == self._descriptors[0]
            time.sleep(0.001)  # it has closed its files, but is not yet gone
        return True


if __name__ == "__main__":
    watch(*sys.argv[1:])
