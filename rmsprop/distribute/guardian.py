"""A process beside each rank that tells if the rank ends without a word: killed, crashed or by ``os._exit``.

The launcher ends the job then, so fast that no other rank can speak. This file is run as it is, and imports
nothing of the package.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence

FAREWELL = b"."
COURTESY = 0.3
"""Seconds in which guardians of ranks that ended earlier may speak."""


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
        command = [sys.executable, "-I", "-S", __file__, who, claim, *map(str, others)]
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


def watch(who: str, claim: str, *others: str) -> None:
    """Wait for the rank to end, and speak if it has not said farewell."""
    said = b""
    while piece := os.read(0, 16):
        said += piece
    if said == FAREWELL:
        return
    if any([_has_ended(process) for process in others]):
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


def _has_ended(process: str) -> bool:
    try:
        os.kill(int(process), 0)
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in b"ZX"
    except ProcessLookupError:
        return True
    except OSError:  # of another user, or without /proc
        return False


if __name__ == "__main__":
    watch(*sys.argv[1:])
