"""Agreement of the ranks before anything changes, and the errors if they do not agree."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

SHOWN = 4
"""Of how many ranks a message tells what is wrong."""


class Statement(NamedTuple):
    """What a rank is about to do.

    Attributes
    ----------
    doing : str
        In a few words, for messages.
    terms : tuple of str
        All that must be the same on all ranks.
    error : str or None
        Why it can't be done.
    """

    doing: str
    terms: tuple[str, ...] = ()
    error: str | None = None

    def digest(self) -> bytes:
        """Return 16 bytes that differ if statements do."""
        present = json.dumps([self.doing, self.error]).encode()
        return hashlib.blake2b(present + _digest(self.terms), digest_size=16).digest()

    def text(self) -> str:
        """Return the statement in the form in which it is sent."""
        return json.dumps(self)


@lru_cache(100)
def _digest(terms: tuple[str, ...]) -> bytes:
    return hashlib.blake2b(json.dumps(terms).encode()).digest()


def read(text: str) -> Statement:
    """Return a statement from its text."""
    doing, terms, error = json.loads(text)
    return Statement(doing, tuple(terms), error)


def disagreement(statements: Sequence[Statement]) -> str | None:
    """Return what keeps the ranks, in order, from going on together; None if nothing does."""
    failed = [f"rank {rank}: {s.error.rstrip('.')}" for rank, s in enumerate(statements) if s.error is not None]
    if failed:
        return f"{_shortened(failed)} ({_others(statements)})"
    first = statements[0]
    different = [_difference(rank, s, first) for rank, s in enumerate(statements) if s != first]
    return _shortened(different) if different else None


def _difference(rank: int, statement: Statement, first: Statement) -> str:
    if statement.doing != first.doing:
        return f"rank {rank} is at {statement.doing}, rank 0 at {first.doing}"
    longest = max(len(statement.terms), len(first.terms))
    # What comes first is what others depend on, so that the first difference is the reason.
    mine, theirs = (list(s.terms) + ["nothing more"] * (longest - len(s.terms)) for s in (statement, first))
    own, other = next((pair for pair in zip(mine, theirs, strict=True) if pair[0] != pair[1]), ("", ""))
    return f"rank {rank} has {own}; rank 0 has {other}"


def _others(statements: Sequence[Statement]) -> str:
    good = [(rank, s.doing) for rank, s in enumerate(statements) if s.error is None]
    return f"rank {good[0][0]} is at {good[0][1]}" if good else f"all are at {statements[0].doing}"


def _shortened(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - SHOWN} more ranks" if len(reasons) > SHOWN else ""
    return "; ".join(reasons[:SHOWN]) + more
