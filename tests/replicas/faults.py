"""A program for `mpiexec` in which something befalls rank 1 at step 3: ``faults.py FAULT FOLDER [OPTIONS]``.

Each rank keeps its variables in a file, so that it can be seen afterwards what they were when the rank ended.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

import rmsprop
from rmsprop.distribute import MPIStrategy, ReplicaError

TIMEOUT = 3.0
FAULTY_STEP = 3
SIZES = {"a": 700, "b": 500}


def gradient(name, rank, step):
    """Return the gradient of a variable on a rank."""
    return np.random.default_rng([rank, step, len(name), ord(name)]).standard_normal(SIZES[name])


def start(name):
    return np.random.default_rng(ord(name)).standard_normal(SIZES[name])


def optimizer():
    return rmsprop.RMSprop(0.01, momentum=0.9)


def befall(fault, pairs, strategy):
    """Let it happen; return what is left to do."""
    if fault == "raise":
        raise ValueError("the loss is too sad")
    if fault in ("exit", "end"):
        sys.exit(3 if fault == "exit" else 0)
    if fault == "os_exit":
        os._exit(0)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(1000)
    if fault == "shape":
        return [(np.ones(9), np.ones(9)), pairs[1]]
    if fault == "dtype":
        return [(pairs[0][0] * 1j, pairs[0][1]), pairs[1]]
    if fault == "fewer":
        return pairs[:1]
    if fault == "none":
        return [(None, variable) for _, variable in pairs]
    if fault == "empty":
        return []
    interrupt(fault, strategy)
    return pairs


def interrupt(fault, strategy):
    """Let it happen when some sums or variables have arrived and others have not."""
    link, calls = strategy._link, []
    what = {"sum": "a sum", "exchange": "an exchange of variables"}[fault.rsplit(maxsplit=1)[1]]
    wait = link.wait

    def interrupted(requests, doing):
        calls.append(doing)
        if calls.count(what) == 3:
            if fault.startswith("error"):
                raise MemoryError("no memory left")
            os.kill(os.getpid(), signal.SIGKILL if fault.startswith("kill") else signal.SIGSTOP)
        wait(requests, doing)

    link.wait = interrupted


def main(fault, folder, *options):
    strategy = MPIStrategy(timeout=TIMEOUT, bucket_bytes=1024, **dict.fromkeys(options, True))

    path = Path(folder) / f"{strategy.rank}"
    everything = np.memmap(path, np.float64, "w+", shape=sum(SIZES.values()))
    variables = dict(zip(SIZES, np.split(everything, [SIZES["a"]]), strict=True))
    for name, variable in variables.items():
        variable[:] = start(name)
    with strategy.scope():
        opt = optimizer()

    def step(number):
        pairs = [(gradient(name, strategy.rank, number), variable) for name, variable in variables.items()]
        if number == FAULTY_STEP and strategy.rank == 1:
            pairs = befall(fault, pairs, strategy)
        opt.apply_gradients(pairs)

    for number in range(FAULTY_STEP + 3):
        before = np.array(everything)
        try:
            strategy.run(step, args=(number,))
        except ReplicaError:
            if (before == everything).all():
                print(f"rank {strategy.rank}: unchanged by step {number}", file=sys.stderr, flush=True)
            raise


if __name__ == "__main__":
    main(*sys.argv[1:])
