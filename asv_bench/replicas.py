"""Measure replicas on this machine, and write what a model fitted to it predicts for others.

``python asv_bench/replicas.py`` runs itself by the mpiexec of the environment on 1, 2 and 4 ranks, a minute in
all, and writes docs/replicas.md.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from replica_model import Machine, fitted, page

import rmsprop
from rmsprop import IndexedSlices, RMSprop
from rmsprop.distribute import MPIStrategy
from rmsprop.distribute.rows import Rows

HERE = Path(__file__).resolve()
RANKS = (1, 2, 4)
SIZES = (1_000, 100_000, 1_000_000, 4_000_000, 16_000_000)
ROWS = (100, 1_000, 10_000)
TABLE = (1_000_000, 16)
FAULTS = "\n## Faults"
"""Where the part of the page begins that comes from tests/distribute/programs/fault_table.py, and stays."""
SECONDS = 1.0
"""Of each measurement."""


class Counting:
    """A communicator that counts the bytes that this rank sends."""

    def __init__(self, comm):
        self._comm, self.sent = comm, 0

    def __getattr__(self, name):
        method = getattr(self._comm, name)

        def counted(send, *others):
            if name == "Isend":
                self.sent += send[0].nbytes
            else:
                own = send[0].nbytes if isinstance(send, list) else others[0][1][0][self._comm.rank]
                self.sent += own * (self._comm.size - 1)  # around a ring
            return method(send, *others)

        return counted if name == "Isend" or name.startswith("Iall") else method


def race(comm, functions):
    """Return the median seconds of functions that are called in turn, each started by all ranks together."""
    times = {name: [] for name in functions}
    begin, is_going = time.perf_counter(), True
    for function in functions.values():
        function()
    while is_going:
        for name, function in functions.items():
            comm.Barrier()
            start = time.perf_counter()
            function()
            times[name].append(comm.allreduce(time.perf_counter() - start, max_of()))
        is_going = comm.bcast(time.perf_counter() - begin < SECONDS or len(times[name]) < 5)
    return {name: statistics.median(each) for name, each in times.items()}


def max_of():
    from mpi4py import MPI

    return MPI.MAX


def optimizer(strategy, variable):
    """Return an optimizer made in the scope of a strategy, after its first step."""
    with strategy.scope():
        opt = RMSprop(1e-6)
    opt.build([variable])
    return opt


def counted(strategy, step):
    """Return the bytes that this rank sends in a step."""
    counting, exchange = Counting(strategy.ranks.link.comm), Rows.exchange

    def exchanged(rows, doing):
        counting.sent += rows.own.nbytes * (strategy.ranks.link.size - 1)
        return exchange(rows, doing)

    strategy.ranks.link.comm, Rows.exchange = counting, exchanged
    step()
    strategy.ranks.link.comm, Rows.exchange = counting._comm, exchange
    return counting.sent


def dense(strategies, comm, size):
    """Measure aggregation, and steps on one array."""
    gradient, total = np.ones(size, np.float32), np.empty(size, np.float32)
    plain = strategies[0]
    arrays = [np.ones(size, np.float32) for _ in range(3)]
    opts = [optimizer(s, v) for s, v in zip(strategies, arrays, strict=False)]
    alone = RMSprop(1e-6)
    alone.build([arrays[2]])

    def step(k):
        opts[k].apply_gradients([(gradient, arrays[k])])

    seconds = race(
        comm,
        {
            "allreduce": lambda: comm.Allreduce(gradient, total),
            "sum": lambda: plain.ranks.reduction.sums([gradient]) if comm.size > 1 else None,
            "update": lambda: alone.apply_gradients([(gradient, arrays[2])]),
            "plain": lambda: step(0),
            "sharded": lambda: step(1),
        },
    )
    sent = [counted(s, lambda k=k: step(k)) for k, s in enumerate(strategies)]
    slots = [getattr(opt.weights[1], "own", None) for opt in opts]
    held = [
        opt.weights[1].array.nbytes if own is None else own.nbytes for opt, own in zip(opts, slots, strict=True)
    ]
    return {"size": size, **seconds, "sent": sent, "slots": held}


def sparse(strategies, comm, rows):
    """Measure steps by gradients that list so many rows of a large table."""
    rng, found = np.random.default_rng(comm.rank), {}
    gradient = IndexedSlices(np.ones((rows, TABLE[1]), np.float32), rng.integers(0, TABLE[0], rows))
    for name, strategy in zip(("plain", "sharded"), strategies, strict=False):
        table = np.ones(TABLE, np.float32)
        opt = optimizer(strategy, table)

        def step(opt=opt, table=table):
            opt.apply_gradients([(gradient, table)])

        found[name] = race(comm, {"step": step})["step"]
        found[f"{name} sent"] = counted(strategy, step)
    return {"rows": rows, **found}


def measure():
    """Measure on the ranks of this job; rank 0 prints what it found."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    strategies = MPIStrategy(), MPIStrategy(shard_state=True)
    found = {
        "ranks": comm.size,
        "dense": [dense(strategies, comm, size) for size in SIZES],
        "sparse": [sparse(strategies, comm, rows) for rows in ROWS],
    }
    if comm.rank == 0:
        print(json.dumps(found))


def main():
    """Run the measurements, fit the model and write the page."""
    one = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    results = []
    for ranks in RANKS:
        command = [Path(sys.executable).with_name("mpiexec"), "-n", str(ranks), sys.executable, HERE, "measure"]
        done = subprocess.run(command, env={**os.environ, **one}, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(done.stdout))
    machine: Machine = fitted(results, os.cpu_count() or 1)
    text = page(results, machine, f"rmsprop {rmsprop.__version__}, {os.cpu_count()} processors")
    path = HERE.parents[1] / "docs" / "replicas.md"
    _, heading, faults = path.read_text().partition(FAULTS)
    path.write_text(text + heading + faults)
    print(text)


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
