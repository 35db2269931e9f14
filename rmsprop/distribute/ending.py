"""The end of a program on one rank, of which the others are told, however it comes."""

import atexit
import os
import sys
from typing import Any, NoReturn, Protocol

from rmsprop.distribute.guardian import Guardian


class Ended(Protocol):
    """What is told of the end of the program: a `rmsprop.distribute.link.Link`."""

    def abort(self, reason: str) -> NoReturn:
        """End the job on all ranks."""
        ...

    def leave(self) -> None:
        """Wait for the others, which may take their time."""


links: list[Ended] = []
"""Those that are to be told."""
guardians: list[Guardian] = []
"""The one of this process, once there is a link."""


def expect(link: Ended) -> None:
    """Tell a link of the end of the program."""
    global _previous_hook, _process
    if not links:
        _previous_hook, _process = sys.excepthook, os.getpid()
        sys.excepthook = _uncaught
        atexit.register(_leave)
    links.append(link)


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    _previous_hook(kind, error, trace)
    for link in _own_links():
        link.abort(f"{kind.__name__}: {error}")


def _leave() -> None:
    own = _own_links()
    for link in own:
        link.leave()
    for guardian in guardians if own else ():
        guardian.farewell()


def _own_links() -> list[Ended]:
    """Return the links of this process, of which one that has been forked off has none."""
    return list(links) if os.getpid() == _process else []


_previous_hook, _process = sys.excepthook, 0
