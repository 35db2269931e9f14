"""Rows that all ranks show each other again and again: one for each rank, of the same size and dtype."""

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from rmsprop.arrays.libraries import DType, Host

ROWS = 2
"""Tag of rows that go directly from rank to rank."""
FEW = 8
"""Ranks up to which each sends its row to each other, without those in between that make it fast for many."""


class Connection(Protocol):
    """What an exchange of rows asks of a `rmsprop.distribute.link.Link`."""

    rank: int
    size: int
    others: list[int]
    comm: Any

    @property
    def is_broken(self) -> bool:
        """Whether the ranks have given up."""
        ...

    def wait(self, requests: Iterable[Any], doing: str) -> None:
        """Wait until requests are done."""


class Rows:
    """A table with a row of each rank, in memory that is used again.

    Parameters
    ----------
    link : Connection
    size : int
        Elements in a row.
    dtype : dtype
    """

    def __init__(self, link: Connection, size: int, dtype: DType) -> None:
        from mpi4py import MPI

        self._link, self._mpi = link, MPI
        self.table: Host = np.empty((link.size, size), dtype)
        self.rows = list(self.table)
        self.own: Host = self.rows[link.rank]
        """The row of this rank, to be written before each exchange."""
        self._requests: list[Any] = []
        if 1 < link.size <= FEW:
            rows = [row.view(np.uint8) for row in self.rows]
            self._requests += [link.comm.Recv_init(rows[rank], rank, ROWS) for rank in link.others]
            self._requests += [link.comm.Send_init(rows[link.rank], rank, ROWS) for rank in link.others]

    def exchange(self, doing: str) -> Host:
        """Return the table with the present rows of all ranks; it is valid until the next exchange."""
        if self._requests:
            self._mpi.Prequest.Startall(self._requests)
            self._link.wait(self._requests, doing)
        elif self._link.size > 1:
            request = self._link.comm.Iallgather(self._mpi.IN_PLACE, self.table.view(np.uint8))
            self._link.wait([request], doing)
        return self.table

    def __del__(self) -> None:
        if self._requests and not self._link.is_broken and not self._mpi.Is_finalized():
            for request in self._requests:
                request.Free()
