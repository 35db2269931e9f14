"""The process that watches over ranks: whom it names."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rmsprop.distribute import guardian

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no guardian without fork")


@pytest.fixture
def said(monkeypatch, tmp_path):
    """Return a function that tells what guardians have said."""
    path = tmp_path / "said"
    with path.open("w") as file:
        monkeypatch.setattr(sys, "__stderr__", file)
        monkeypatch.setattr(guardian.tempfile, "tempdir", str(tmp_path))
        yield path.read_text


def connected(ranks):
    path = guardian.start(ranks)
    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(lambda rank: guardian.Guardian(f"rank {rank}", path), range(ranks)))


def text_of(said):
    end = time.monotonic() + 20
    while not said().endswith("\n") and time.monotonic() < end:
        time.sleep(0.005)
    return said()


@pytest.mark.parametrize("first", range(6))
def test_the_rank_that_ends_first_is_named_and_no_other(said, first):
    ranks = connected(6)
    for rank in (ranks[first], *ranks):
        rank._socket.close()
    assert text_of(said).startswith(f"rmsprop: rank {first} ended without a word")


def test_ranks_that_take_leave_are_not_named(said):
    ranks = connected(3)
    ranks[0].farewell()
    for rank in (ranks[2], ranks[1]):
        rank._socket.close()
    assert text_of(said).startswith("rmsprop: rank 2 ended without a word")


def test_a_rank_that_gives_its_reason_silences_the_guardian(said):
    ranks = connected(2)
    ranks[1].farewell(is_failing=True)
    assert ranks[0]._socket.recv(1) == b""  # it has gone
    assert said() == ""


def test_nothing_is_left_of_where_they_met(said, tmp_path):
    for rank in connected(2):
        rank.farewell()
    assert [path.name for path in tmp_path.iterdir()] == ["said"]
