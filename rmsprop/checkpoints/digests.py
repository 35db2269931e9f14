"""Digests of files: in each version of the format, what all that is before the digest comes to."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from rmsprop.checkpoints.helpers import Helpers, Task

PIECE = 1 << 20
"""Bytes that are hashed and written in turn, so that they come from memory once."""
AHEAD = 16
"""Pieces at most that wait to be hashed."""


class Digest(Protocol):
    """What hashes a file piece by piece."""

    def update(self, data: Any, /) -> None:
        """Take the next piece, which nobody may change until the end."""

    def digest(self) -> bytes:
        """Return the 32 bytes of all pieces."""
        ...


def digest_of(version: str, helpers: Helpers) -> Digest:
    """Return what hashes a file of a version of the format."""
    return hashlib.sha256() if version == "1" else OfPieces(helpers)


class OfPieces:
    """The SHA-256 of the SHA-256 of each piece, which helpers take beside the reading or writing."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers, self._waiting, self._whole = helpers, deque[Task](), hashlib.sha256()

    def update(self, data: Any, /) -> None:
        """Take the next piece, which nobody may change until the end."""
        self._collect(AHEAD - 1)
        self._waiting.append(self._helpers.begin(_hashed, data))

    def digest(self) -> bytes:
        """Return the 32 bytes of all pieces."""
        self._collect(0)
        return self._whole.digest()

    def _collect(self, left: int) -> None:
        while len(self._waiting) > left:
            self._whole.update(self._waiting.popleft()())


def _hashed(data: Any) -> bytes:
    return hashlib.sha256(data).digest()


def pieces_of(blocks: Iterable[Any]) -> Iterator[bytearray]:
    """Yield bytes in pieces, as copies: what is written must be what was hashed."""
    piece = bytearray()
    for block in blocks:
        rest = memoryview(block)
        while rest:
            count = PIECE - len(piece)
            piece += rest[:count]
            rest = rest[count:]
            if len(piece) == PIECE:
                yield piece
                piece = bytearray()
    if piece:
        yield piece
