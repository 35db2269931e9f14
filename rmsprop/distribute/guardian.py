"""A process beside the ranks of a machine that tells which of them ended without a word: killed or crashed.

The launcher ends the job then, so fast that no other rank can speak. This file is run as it is, and imports
nothing of the package.
"""

import os
import selectors
import socket
import subprocess
import sys
import tempfile

FAREWELL, FAILING, READY = b".", b"!", b"+"
PATIENCE = 10.0
"""Seconds in which the guardian and the ranks must have met."""
HIGH = 200
"""A number of a file that is higher than that of the launcher's connection."""


def start(ranks: int) -> str:
    """Start the guardian of so many ranks; return the path of the socket where it waits for them."""
    path = os.path.join(tempfile.mkdtemp(prefix="rmsprop-"), "door")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(ranks)
        command = [sys.executable, "-I", "-S", __file__, path, str(ranks)]
        # It goes on in a process of its own, for which nobody need wait.
        subprocess.run(command, stdin=door.fileno(), stdout=sys.__stderr__, start_new_session=True, check=False)
    return path


class Guardian:
    """The connection of this rank to the process that speaks when it is closed without `farewell`.

    Parameters
    ----------
    who : str
        How messages call this rank.
    path : str
        Where the process waits for the ranks, all of which must come.
    """

    def __init__(self, who: str, path: str) -> None:
        self._socket = _numbered_high()
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)
        self._socket.sendall(who.encode())
        self._socket.recv(1)  # from now on it sees who ends first
        os.register_at_fork(after_in_child=self._socket.close)  # children may outlive this process

    def farewell(self, is_failing: bool = False) -> None:
        """Let the guardian forget this rank; if it is about to end the job, the others, too."""
        if self._socket.fileno() >= 0:
            self._socket.sendall(FAILING if is_failing else FAREWELL)
            self._socket.close()


def _numbered_high() -> socket.socket:
    """Return a socket that is closed before the launcher's, which ends the other ranks when that is closed.

    Linux closes the files of a process that ends from the last to the first.
    """
    import fcntl

    with socket.socket(socket.AF_UNIX) as low:
        return socket.socket(fileno=fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, HIGH))


def watch(path: str, ranks: str) -> None:
    """Wait for ranks to come, then for one of them to leave without farewell, and tell who it was."""
    if os.fork():
        os._exit(0)
    selector = selectors.DefaultSelector()  # it keeps the order of events, even if this process is late
    door = socket.socket(fileno=0)
    door.settimeout(PATIENCE)
    try:
        for _ in range(int(ranks)):
            rank, _ = door.accept()
            selector.register(rank, selectors.EVENT_READ, rank.recv(1000).decode())
    finally:
        os.unlink(path)
        os.rmdir(os.path.dirname(path))
    for key in selector.get_map().values():
        os.write(key.fd, READY)
    while selector.get_map():
        for key, _ in selector.select():
            said = os.read(key.fd, 1)
            if said == FAREWELL:
                selector.unregister(key.fileobj)
            elif said == FAILING:
                return
            else:
                reason = "ended without a word: it was killed, has crashed, or has called os._exit"
                os.write(1, f"rmsprop: {key.data} {reason}.\n".encode())
                return


if __name__ == "__main__":
    watch(*sys.argv[1:])
