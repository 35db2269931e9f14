"""A communicator in which nobody waits for ever: not for a rank that hangs, nor for one that has left."""

import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import Any, NoReturn

import numpy as np

from rmsprop.arrays.libraries import Host
from rmsprop.distribute import agreement, ending, guardian
from rmsprop.distribute.agreement import Statement
from rmsprop.distribute.errors import ReplicaError
from rmsprop.distribute.rows import Rows

ALARM = 32_761
"""Tag, hardly used by others, of messages by which ranks tell each other that they have waited too long."""
RECORD = 17
"""Bytes by which ranks compare statements: a digest, and whether there is no error."""
RESTORED = 32_762
"""Tag of messages by which ranks tell each other that they have put back what a failed step had changed."""
GRACE = 2.0
"""Seconds in which a rank that is there must answer an alarm."""
SPINS = 16
"""Looks for what is awaited until which a rank does nothing else, since small messages arrive at once."""
PATIENCE = 1.0
"""Seconds of waiting from which on a rank sleeps between looks; before that it only lets others run."""

Array = Host


class Link:
    """The connection of this rank to the others.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        It is duplicated, so that no other messages interfere.
    timeout : float
        Seconds that a rank waits for the others.
    """

    def __init__(self, comm: Any, timeout: float) -> None:
        self.rank, self.size, self.timeout = comm.rank, comm.size, timeout
        self.others = [rank for rank in range(self.size) if rank != self.rank]
        self._broken: str | None = None
        self._is_leaving = self._is_certain = False
        self._alarms: dict[int, str] = {}
        self._missing: list[int] = []
        self._kept: list[Any] = []
        self.comm = comm
        if self.size > 1:
            ending.expect(self)
            duplicate, request = comm.Idup()
            self.wait([request], "the start")
            self.comm = duplicate
        self._records = Rows(self, RECORD, np.uint8)
        if self.size > 1:
            self._guard()

    def _guard(self) -> None:
        """Let a process watch over the ranks of this machine, unless one does already."""
        host = b"" if ending.guardians or not hasattr(os, "fork") else socket.gethostname().encode()
        near = [rank for rank, other in enumerate(self.exchange(host, "the start")) if host and other == host]
        path = b""
        # Where it can't be done, all that is missing is a message.
        with suppress(OSError):
            path = guardian.start(len(near)).encode() if near[:1] == [self.rank] else b""
        paths = self.exchange(path, "the start")
        with suppress(OSError):
            if near and paths[near[0]]:
                who = f"rank {self.rank} of {self.size} (process {os.getpid()} on {host.decode()})"
                ending.guardians.append(guardian.Guardian(who, paths[near[0]].decode()))

    @property
    def is_broken(self) -> bool:
        """Whether the ranks have given up."""
        return self._broken is not None

    # Agreement

    def agree(self, statement: Statement) -> None:
        """Go on only if all ranks make the same statement, without an error; else raise on all of them.

        Parameters
        ----------
        statement : Statement

        Raises
        ------
        ReplicaError
            On all ranks.
        """
        if self._broken is not None:
            raise ReplicaError(self._broken)
        is_good = statement.error is None
        record = statement.digest() + bytes([is_good])
        self._records.own[:] = np.frombuffer(record, np.uint8)
        records = self._records.exchange(statement.doing).tobytes()
        if is_good and records == record * self.size:
            return
        texts = self.exchange(statement.text().encode(), statement.doing)
        message = agreement.disagreement([agreement.read(text.decode()) for text in texts])
        raise ReplicaError(message)

    @contextmanager
    def announcing(self, doing: str) -> Iterator[None]:
        """Let the other ranks know of an exception, in place of the statement that they wait for."""
        try:
            yield
        except Exception as error:
            self.announce(error, doing)
            raise

    def announce(self, error: BaseException, doing: str) -> None:
        """Tell the other ranks of an error, unless they know it; they raise `ReplicaError`."""
        if self.size == 1 or isinstance(error, ReplicaError) or getattr(error, "_is_announced", False):
            return
        try:
            self.agree(Statement(doing, error=f"{type(error).__name__}: {error}"))
        except ReplicaError as others:
            error.add_note(f"Rank {self.rank} of {self.size}. {others}")
        error._is_announced = True  # type: ignore[attr-defined]

    @contextmanager
    def certain(self, doing: str) -> Iterator[None]:
        """Stop all ranks if this one fails at what they have agreed on; they may be anywhere in it.

        None goes on, to end the job, before all have put back what they have changed.
        """
        self._is_certain = True
        try:
            yield
        except BaseException as error:
            is_known = isinstance(error, ReplicaError) or getattr(error, "_is_announced", False)
            if not is_known and self.size > 1:
                self._broken = f"rank {self.rank}: {type(error).__name__}: {error}"
                self._alarm(self._broken, is_final=True)
                error._is_announced = True  # type: ignore[attr-defined]
            if self.is_broken:
                self._tell(None, RESTORED)
                self._await_restored()
            raise
        finally:
            self._is_certain = False

    def exchange(self, message: bytes, doing: str) -> list[bytes]:
        """Return the messages of all ranks, of any lengths."""
        counts = self.gathered(np.array([len(message)], np.int64), doing)[:, 0]
        pieces = self.gather(np.frombuffer(message, np.uint8), counts, doing)
        return [piece.tobytes() for piece in np.split(pieces, np.cumsum(counts)[:-1])]

    def counts(self, own: Sequence[int], doing: str) -> Array:
        """Return the whole numbers of all ranks, a row for each."""
        return self.gathered(np.array(own, np.int64), doing)

    def gather(self, own: Array, counts: Sequence[int] | Array, doing: str) -> Array:
        """Return what the ranks have, end to end; `counts` are numbers of elements of the first axis."""
        everything = np.empty((int(np.sum(counts)), *own.shape[1:]), own.dtype)
        row = own.itemsize * int(np.prod(own.shape[1:]))
        sizes = [int(count) * row for count in counts]
        self.wait([self.comm.Iallgatherv(raw(own), raw(everything, sizes, starts(sizes)))], doing)
        return everything

    def gathered(self, own: Array, doing: str) -> Array:
        """Return arrays of the same shape of all ranks, one row for each."""
        if self.size == 1:
            return own[None].copy()
        everything = np.empty((self.size, *own.shape), own.dtype)
        self.wait([self.comm.Iallgather(raw(np.ascontiguousarray(own)), raw(everything))], doing)
        return everything

    # Waiting

    def wait(self, requests: Iterable[Any], doing: str) -> None:
        """Wait until requests are done.

        Raises
        ------
        ReplicaError
            After the time-out, or when another rank has given up, with the ranks that are missing.
        """
        begin, looks, limit = time.monotonic(), 0, self.timeout
        for request in requests:
            while not request.Test():
                looks += 1
                if looks < SPINS:
                    continue
                os.sched_yield()
                if looks % 64:
                    continue
                waited = time.monotonic() - begin
                if waited > limit and self._is_leaving:
                    self._say(f"has waited {limit:g} s at {doing} for the others, and goes on waiting.")
                    limit = np.inf
                if waited > limit or self._has_alarm():
                    self._kept += requests  # whose buffers may yet be written to
                    self._give_up(doing)
                if waited > PATIENCE:
                    time.sleep(0.001)

    def _has_alarm(self) -> bool:
        return self.comm.Iprobe(tag=ALARM)  # type: ignore[no-any-return]

    def _give_up(self, doing: str) -> NoReturn:
        """Find out who is missing, and raise `ReplicaError`."""
        self._alarm(doing)
        final = self._listen()
        if final is None:
            self._missing = [rank for rank in self.others if rank not in self._alarms]
        self._broken = final or self._reason(doing)
        if not self._is_certain:
            self._tell(None, RESTORED)
        raise ReplicaError(self._broken)

    def _listen(self) -> str | None:
        """Wait, but not long, until all others have given up, too; return the reason if one of them tells it."""
        end = time.monotonic() + GRACE
        while len(self._alarms) < len(self.others) and time.monotonic() < end:
            if self._has_alarm():
                status = _mpi().Status()
                text, is_final = self.comm.recv(tag=ALARM, status=status)
                self._alarms[status.source] = text
                if is_final:
                    return str(text)
            time.sleep(0.001)
        return None

    def _alarm(self, text: str, is_final: bool = False) -> None:
        """Tell all others that something is wrong; if it is final, what."""
        self._tell((text, is_final), ALARM)

    def _tell(self, message: Any, tag: int) -> None:
        self._kept += [self.comm.isend(message, rank, tag) for rank in self.others]

    def _await_restored(self) -> None:
        """Wait until all others, without those that do not answer, have put back what they had changed."""
        awaited, end = set(self.others).difference(self._missing), time.monotonic() + self.timeout
        while awaited and time.monotonic() < end:
            status = _mpi().Status()
            if self.comm.Iprobe(tag=RESTORED, status=status):
                self.comm.recv(source=status.source, tag=RESTORED)
                awaited.discard(status.source)
            else:
                time.sleep(0.001)

    def _reason(self, doing: str) -> str:
        if self._missing:
            ranks = ", ".join(map(str, self._missing[:16])) + ", ..." * (len(self._missing) > 16)
            verb = "has" if len(self._missing) == 1 else "have"
            return (
                f"rank {ranks} {verb} not answered within {self.timeout:g} s: it hangs, or does something else. "
                f"Rank {self.rank} waits at {doing}."
            )
        rank, theirs = next(iter(sorted(self._alarms.items())))
        return f"rank {rank} waits at {theirs}, rank {self.rank} at {doing}, and they do not go together."

    # The end

    def leave(self) -> None:
        """Say farewell at the end of the program: wait for the others, which may take their time."""
        if _mpi().Is_finalized():
            return
        if self._broken is not None:
            self.abort(self._broken)
        self._is_leaving = True
        try:
            self.agree(Statement("the end of the program"))
        except ReplicaError as error:
            self._say(f"has left: {error}")

    def _say(self, text: str) -> None:
        print(f"rmsprop: rank {self.rank} of {self.size} {text}", file=sys.stderr, flush=True)

    def abort(self, reason: str) -> NoReturn:
        """End the job on all ranks."""
        for each in ending.guardians:
            each.farewell(is_failing=True)
        self._say(f"ends the job: {reason}")
        sys.stdout.flush()
        time.sleep(0.3)  # in which the launcher passes on what has been said
        self.comm.Abort(1)
        os._exit(1)


def raw(array: Array, sizes: Sequence[int] | None = None, begins: Sequence[int] = ()) -> list[Any]:
    """Return the memory of a contiguous array as MPI takes it, whole or cut; sizes and begins are in bytes."""
    parts = [] if sizes is None else [(sizes, begins)]
    if not isinstance(array, np.ndarray):  # of a device, where it may not yet be what it is going to be
        import cupy

        cupy.cuda.get_current_stream().synchronize()
    return [array.reshape(-1).view(np.uint8), *parts, _mpi().BYTE]


def starts(sizes: Sequence[int]) -> list[int]:
    """Return where each of several stretches, one after the other, begins."""
    return [0, *accumulate(sizes)][:-1]


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI
