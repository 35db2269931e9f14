"""A program for `mpiexec` in which something befalls a rank: ``faults.py FAULT FOLDER RANK STEP [OPTIONS]``.

Each rank keeps its variables in a file, so that it can be seen afterwards what they were when the rank ended.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import rmsprop
import rmsprop_numba
from rmsprop.distribute import MPIStrategy, ReplicaError, get_replica_context
from rmsprop.distribute.undo import Journal

TIMEOUT = 3.0
SIZES = {"a": 700, "b": 500}
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGINT}
WAITING = {"sum": "a sum", "exchange": "an exchange of variables"}


def gradient(name, rank, step):
    """Return the gradient of a variable on a rank."""
    return np.random.default_rng([rank, step, len(name), ord(name)]).standard_normal(SIZES[name])


def start(name):
    return np.random.default_rng(ord(name)).standard_normal(SIZES[name])


def optimizer():
    return rmsprop.RMSprop(0.01, momentum=0.9)


def strike(kind):
    """Let the worst happen to this process, here and now."""
    if kind == "error":
        raise MemoryError("no memory left")
    os.kill(os.getpid(), SIGNALS[kind])


def befall(fault, pairs, strategy, opt):
    """Let it happen; return what is left to do."""
    kind, _, place = fault.partition(" in ")
    if place == "an update":
        in_update(kind)
    elif place:
        in_wait(kind, strategy.ranks.link, WAITING[place.split()[1]])
    elif fault == "options":
        opt.rho = 0.8
    elif fault == "another call":
        get_replica_context().all_reduce("sum", [1.0])
    else:
        at_once(fault)
    return {
        "shape": [(np.ones(9), np.ones(9)), pairs[1]],
        "dtype": [(pairs[0][0] * 1j, pairs[0][1]), pairs[1]],
        "single": [(np.ones(700, np.float32), np.ones(700, np.float32)), pairs[1]],
        "fewer": pairs[:1],
        "none": [(None, variable) for _, variable in pairs],
        "empty": [],
    }.get(fault, pairs)


def at_once(fault):
    if fault.startswith("raise"):
        raise ValueError("the loss is too sad")
    if fault in ("exit", "end"):
        sys.exit(3 if fault == "exit" else 0)
    if fault == "os_exit":
        os._exit(0)
    if fault.startswith("hang"):
        time.sleep(1000)
    if fault in SIGNALS:
        strike(fault)


def in_wait(kind, link, what):
    """Let it happen when some sums or variables have arrived and others have not."""
    wait, calls = link.wait, []

    def interrupted(requests, doing):
        calls.append(doing)
        if calls.count(what) == 3:
            strike(kind)
        wait(requests, doing)

    link.wait = interrupted


def in_update(kind):
    """Let errors happen before the first variable changes, and all else meanwhile."""
    prepare = rmsprop_numba.backend.prepare

    def prepared(*arguments):
        if kind == "error":
            strike(kind)
        finish = prepare(*arguments)
        return lambda: (strike(kind), finish())

    rmsprop_numba.backend.prepare = prepared


def slow_down_undoing():
    """Let it take long to put back what was: the job must not end meanwhile."""
    undo = Journal.undo
    Journal.undo = lambda journal: (time.sleep(0.5), undo(journal))


def at_random(kind):
    """Let it happen within a fifth of a second."""
    number, delay = SIGNALS[kind].value, random.uniform(0, 0.2)
    command = f"sleep {delay}; date +%s.%N > when; kill -{number} {os.getpid()}"
    subprocess.Popen(["/bin/sh", "-c", command], start_new_session=True)


def main(fault, folder, victim, faulty_step, *options):
    from mpi4py import MPI

    os.chdir(folder)
    is_victim = int(victim) == MPI.COMM_WORLD.rank
    if is_victim and fault.endswith("before"):
        Path("when").write_text(str(time.time()))
        at_once(fault)
    strategy = MPIStrategy(timeout=TIMEOUT, bucket_bytes=1024, **dict.fromkeys(options, True))

    everything = np.memmap(str(strategy.rank), np.float64, "w+", shape=sum(SIZES.values()))
    steps = np.memmap(f"steps of {strategy.rank}", np.int64, "w+", shape=1)
    variables = dict(zip(SIZES, np.split(everything, [SIZES["a"]]), strict=True))
    for name, variable in variables.items():
        variable[:] = start(name)
    with strategy.scope():
        opt = optimizer()
    is_random = fault.endswith("at random")
    if fault.endswith("in a sum"):
        slow_down_undoing()

    def step(number):
        pairs = [(gradient(name, strategy.rank, number), variable) for name, variable in variables.items()]
        if number == int(faulty_step) and is_victim and is_random:
            at_random(fault.split()[0])
        elif number == int(faulty_step) and is_victim:
            Path("when").write_text(str(time.time()))
            pairs = befall(fault, pairs, strategy, opt)
        opt.apply_gradients(pairs)

    for number in range(100_000 if is_random else int(faulty_step) + 3):
        before = np.array(everything)
        try:
            strategy.run(step, args=(number,))
        except ReplicaError:
            if (before == everything).all():
                print(f"rank {strategy.rank}: unchanged by step {number}", file=sys.stderr, flush=True)
            raise
        steps[0] = number + 1


if __name__ == "__main__":
    main(*sys.argv[1:])
