"""What is to happen when something befalls a rank.

``fault_table.py RANKS TIMES [AT_ONCE] [FAULT ...]`` tries it, with ``2,4`` on 2 and on 4 ranks. Each fault befalls
all ranks in turn, at the first step and at a later one. A line, as in docs/replicas.md, tells what the message is,
how often all was well, how long it took at most, and what the variables of the other ranks were.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
MPIEXEC = shutil.which("mpiexec", path=Path(sys.executable).parent) or "mpiexec"
SHARED = Path("/dev/shm")

spec = importlib.util.spec_from_file_location("faults", HERE / "faults.py")
faults = importlib.util.module_from_spec(spec)
spec.loader.exec_module(faults)

SPARE = 5.0
"""Seconds after the time-out in which a job must be over."""

BEFORE, AFTER, EITHER = "before", "after", "either"


class Fault(NamedTuple):
    """What is to be seen of a fault; ``{v}`` stands for the rank that it befalls, ``{s}`` for the step."""

    message: str
    options: tuple[str, ...] = ()
    state: str = BEFORE
    """Whether the other ranks' variables are those before the step, or after it, since it had been decided."""
    is_silent: bool = False
    """Whether the launcher ends the others before they can speak: in an update, if state is "either"."""


DEAD = r"rank {v} of \d .* was killed, has crashed, or has called os._exit"
MISSING = r"rank {v} has not answered within 3 s"
NO_MEMORY = r"rank {v}( of \d ends the job)?: MemoryError: no memory left"
LEFT = r"rank {v} (is )?at the end of the program"

FAULTS = {
    "raise": Fault(r"rank {v}: ValueError: the loss is too sad"),
    "exit": Fault(LEFT),
    "end": Fault(LEFT),
    "os_exit": Fault(DEAD, is_silent=True),
    "kill": Fault(DEAD, is_silent=True),
    "interrupt": Fault(r"rank {v} of \d ends the job: KeyboardInterrupt", is_silent=True),
    "hang": Fault(MISSING),
    "raise before": Fault(MISSING + r".* waits at the start", is_silent=True),
    "hang before": Fault(MISSING + r".* waits at the start", is_silent=True),
    "shape": Fault(r"rank {v} has variable 0 \(float64, shape \(9,\)\)"),
    "single": Fault(r"rank {v} has variable 0 \(float32, shape \(700,\)\)"),
    "dtype": Fault(r"rank {v}: TypeError: Gradient of variable 0 .* complex128"),
    "fewer": Fault(r"rank {v} has 1 variables"),
    "none": Fault(r"rank {v}: ValueError: No gradients provided"),
    "empty": Fault(r"rank {v} has 0 variables"),
    "options": Fault(r"rank {v} has Hyperparameters.*rho=0\.8"),
    "another call": Fault(r"rank {v} (is )?at all_reduce\(sum\)"),
    "kill in a sum": Fault(DEAD, is_silent=True),
    "stop in a sum": Fault(MISSING),
    "error in a sum": Fault(NO_MEMORY),
    "interrupt in a sum": Fault(r"rank {v}: KeyboardInterrupt"),
    "error in an exchange": Fault(NO_MEMORY, ("shard_state",)),
    "kill in an exchange": Fault(DEAD, ("shard_state",), state=EITHER, is_silent=True),
    "stop in an exchange": Fault(MISSING, ("shard_state",)),
    "error in an update": Fault(NO_MEMORY),
    "error in an update, sharded": Fault(NO_MEMORY, ("shard_state",)),
    "kill in an update": Fault(DEAD, state=EITHER, is_silent=True),
    "interrupt in an update": Fault(r"rank {v} of \d ends the job: KeyboardInterrupt", state=AFTER),
    "kill at random": Fault(DEAD, state=EITHER, is_silent=True),
    "stop at random": Fault(MISSING, state=EITHER),
}


class Outcome(NamedTuple):
    """What was seen, and what was wrong with it."""

    seconds: float
    """From the fault to the end of the job."""
    problems: list[str]
    states: list[str]
    """Of the other ranks: those before or after the step, or one that the launcher ended in an update."""
    text: str


def mpiexec(cache, ranks, path, *arguments):
    """Run a program on ranks of one thread each, with kernels that are compiled once, in the folder `cache`."""
    one = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **one, "RMSPROP_CACHE": "1", "NUMBA_CACHE_DIR": str(cache)}
    command = [MPIEXEC, "-n", ranks, sys.executable, "-W", "error", path, *arguments]
    with sweeping():
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=80, env=environment)


@contextmanager
def sweeping():
    """Remove the shared memory of a job that was killed, 2 MB and more, which MPICH leaves behind.

    Where it has filled /dev/shm, programs that use MPI get a bus error.
    """
    there = set(SHARED.glob("mpich_shm_*"))
    yield
    new = {path for path in SHARED.glob("mpich_shm_*") if path not in there}
    used = "".join(map(read, Path("/proc").glob("[0-9]*/maps"))) if new else ""
    for path in new:
        with suppress(FileNotFoundError):
            if str(path) not in used and time.time() - path.stat().st_mtime > 0.1:  # it is not just being made
                path.unlink()


def read(path):
    try:
        return path.read_text()
    except OSError:  # the process has ended, or is another user's
        return ""


def attempt(name, ranks, victim, step, cache):
    """Let a fault befall a rank in a job."""
    fault = FAULTS[name]
    base = name.removesuffix(", sharded")
    with tempfile.TemporaryDirectory() as folder:
        done = mpiexec(cache, ranks, HERE / "faults.py", base, folder, victim, step, *fault.options)
        when = Path(folder) / "when"
        seconds = time.time() - float(when.read_text()) if when.exists() else np.inf
        others = [rank for rank in range(ranks) if rank != victim]
        states = [] if name.endswith("before") else states_of(Path(folder), name, ranks, victim, step, others)
    text = done.stdout + done.stderr
    return Outcome(seconds, list(problems(fault, done, seconds, states, victim, step)), states, text)


def problems(fault, done, seconds, states, victim, step):
    """Yield what is wrong with the end of a job."""
    if seconds > faults.TIMEOUT + SPARE:
        yield f"over only after {seconds:.1f} s"
    if not re.search(fault.message.format(v=victim, s=step), done.stderr):
        yield "no message"
    if done.returncode == 0 and "os._exit" not in fault.message:  # then mpiexec may return what was given
        yield "the job seems to have succeeded"
    allowed = {BEFORE: ["before"], AFTER: ["after"], EITHER: ["before", "after"]}[fault.state]
    if fault.state == EITHER and fault.is_silent:
        allowed.append("ended in an update")
    if not set(states) <= set(allowed):
        yield f"variables as {states}"
    if not fault.is_silent and fault.state == BEFORE and ": unchanged by step" not in done.stderr:
        yield "no rank has found its variables unchanged"


def states_of(folder, name, ranks, victim, step, others):
    """Return how the variables of the other ranks have ended."""
    first = int(np.fromfile(folder / f"steps of {victim}", np.int64)[0]) if name.endswith("random") else step
    before, after = states_after(ranks, (first, first + 1))
    found = []
    for rank in others:
        ended = np.fromfile(folder / str(rank))
        is_either = "before" if (ended == before).all() else "after" if (ended == after).all() else None
        is_mixed = bool(np.all((ended == before) | (ended == after)))
        found.append(is_either or ("ended in an update" if is_mixed else "something else"))
    return found


def states_after(ranks, counts):
    """Return what the variables are after so many steps that no rank has failed in."""
    variables = {name: faults.start(name) for name in faults.SIZES}
    opt, states = faults.optimizer(), {}
    for step in range(max(counts) + 1):
        states[step] = np.concatenate([*variables.values()])
        sums = [sum(faults.gradient(name, rank, step) for rank in range(ranks)) for name in variables]
        opt.apply_gradients(zip(sums, variables.values(), strict=True))
    return [states[count] for count in counts]


def message_of(fault):
    """Return what is told of rank 1 of 2, in a form for readers; what may be missing is left out."""
    text = re.sub(r"\([^()]*\)\?", "", fault.message).format(v=1)
    return text.replace(r"\d", "2").replace(".*", "…").replace("\\", "")


def tried(name, ranks, times, cache, pool):
    """Return the cell of a table that tells what came of a fault on so many ranks."""
    turns = [(name, ranks, (turn + 1) % ranks, 3 * (turn // ranks % 2 == 0), cache) for turn in range(times)]
    outcomes = list(pool.map(lambda turn: attempt(*turn), turns))
    for each in outcomes:
        if each.problems:
            print(name, each.problems, each.text[-3000:], sep="\n", file=sys.stderr)
    good = sum(not each.problems for each in outcomes)
    ends = [state for each in outcomes for state in each.states]
    counts = ", ".join(f"{ends.count(s)} {s}" for s in sorted(set(ends)))
    return f"{good} of {times}, {max(each.seconds for each in outcomes):.1f} s" + f": {counts}" * bool(counts)


def main(ranks, times, at_once=1, *names):
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(int(at_once)) as pool:
        for warm in ("options", "kill in an update", "kill in an exchange"):  # compile the kernels
            attempt(warm, 2, 1, 3, cache)
        for name in names or FAULTS:
            cells = [tried(name, int(n), int(times), cache, pool) for n in ranks.split(",")]
            print(f"| {name} | {message_of(FAULTS[name])} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
