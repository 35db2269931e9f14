"""Threads and processes: what the optimizers promise to those that use several."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import weakref
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from rmsprop import RMSprop, locks
from rmsprop_numba import threads

PROGRAMS = Path(__file__).parent / "threads"


def run(*arguments, **variables):
    """Run a program beside this file; return what it prints."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=PROGRAMS,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """Return the variables by which programs share what they compile."""
    return {"RMSPROP_CACHE": "1", "NUMBA_CACHE_DIR": str(tmp_path_factory.mktemp("kernels"))}


@pytest.mark.parametrize("layer", ["omp", "tbb", "workqueue", "hidden"])
def test_threads_give_the_same_bits_on_each_threading_layer(layer, cached):
    if layer == "tbb" and not next(iter(metadata.distributions(name="tbb")), None):
        pytest.skip("there is no tbb for this machine")
    assert " 0 wrong" in run(
        "together.py", "--layer", layer, "--kinds", 2, "--threads", 4, "--steps", 20, **cached
    )


@pytest.mark.parametrize("methods", [[*multiprocessing.get_all_start_methods(), "executor"], ["loky", "joblib"]])
def test_processes_started_after_use_have_the_same_bits(methods, cached):
    if "joblib" in methods:
        pytest.importorskip("joblib", reason="joblib comes with the extra 'demo'")
    found = run("-W", "ignore", "forks.py", "--kinds", 1, "--times", 1, "--methods", *methods, **cached)
    assert found.count(" 0 wrong") == len(methods)


def test_processes_that_fill_one_cache_at_once_have_the_bits_of_one_without():
    assert " 0 wrong" in run("crowd.py", "--kinds", 1, "--processes", 2, "--times", 1)


def test_a_step_within_a_step_is_refused_and_changes_nothing():
    def rho():
        if nested:
            opt.apply_gradients([(w, w)])
        return 0.9

    nested, w = [], np.ones(3)
    opt = RMSprop(rho=rho)
    opt.apply_gradients([(w, w)])
    nested.append(True)
    before = [*opt.get_weights(), w.copy()]
    with pytest.raises(RuntimeError, match="under way"):
        opt.apply_gradients([(w, w)])
    assert all(map(np.array_equal, before, [*opt.get_weights(), w]))
    nested.clear()
    opt.apply_gradients([(w, w)])
    assert int(opt.iterations) == 2


def test_what_a_step_calls_may_read_the_optimizer():
    w = np.ones(3)
    opt = RMSprop(rho=lambda: 0.9 if len(opt.get_weights()) else 0.0)
    opt.apply_gradients([(w, w)])
    assert int(opt.iterations) == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies_have_locks_of_their_own(copied):
    opt = RMSprop()
    twin = copied(opt)
    assert twin._state.lock is not opt._state.lock
    twin.apply_gradients([(np.ones(2), np.ones(2))])


class Interlude:
    """While it is being pickled, another thread does something."""

    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        thread = threading.Thread(target=self.act)
        thread.start()
        thread.join()
        return object, ()


def test_an_optimizer_that_steps_while_it_is_pickled_is_refused():
    opt, w = RMSprop(), np.ones(3)
    vars(opt)["note"] = Interlude(lambda: opt.apply_gradients([(w, w)]))
    with pytest.raises(RuntimeError, match="while it was being pickled"):
        pickle.dumps(opt)
    vars(opt)["note"] = Interlude(lambda: opt.get_weights())
    assert int(pickle.loads(pickle.dumps(opt)).iterations) == 1


def test_under_workqueue_several_threads_are_used_only_while_python_has_one(monkeypatch):
    monkeypatch.setattr(threads, "_layer", lambda: "workqueue")
    monkeypatch.setattr(threads, "_is_forked", False)
    monkeypatch.setattr(threads.threading, "active_count", lambda: 1)
    assert threads._is_safe()
    monkeypatch.setattr(threads.threading, "active_count", lambda: 2)
    assert not threads._is_safe()
    monkeypatch.setattr(threads, "_layer", lambda: "omp")
    assert threads._is_safe()


FORKED = """
import os, threading, time, numpy as np
from rmsprop import RMSprop, locks
w, inside = np.ones(400_000, np.float32), threading.Event()
opt, slow = RMSprop(), RMSprop(rho=lambda: (inside.set(), time.sleep(1), 0.9)[2])
opt.apply_gradients([(w, w)])
locks.PATIENCE = PATIENCE
v = np.ones(3)
thread = threading.Thread(target=slow.apply_gradients, args=([(v, v)],))
thread.start()
inside.wait()
if os.fork() == 0:
    opt.apply_gradients([(w, w)])
    try:
        slow.apply_gradients([(v, v)])
        os._exit(3 if int(slow.iterations) == 2 else 4)
    except RuntimeError as error:
        os._exit(5 if "forked" in str(error) else 6)
_, status = os.wait()
thread.join()
slow.apply_gradients([(v, v)])
print(os.waitstatus_to_exitcode(status), int(slow.iterations))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize(("patience", "status"), [("10.0", 3), ("0.0", 5)])
def test_a_fork_waits_for_steps_or_the_child_is_told_what_is_incomplete(patience, status):
    code = FORKED.replace("PATIENCE = PATIENCE", f"PATIENCE = {patience}")
    assert run("-W", "ignore", "-c", code).split() == [str(status), "2"]


def test_steps_left_out_are_counted_once_whoever_asks_while_others_step():
    opt, is_free = RMSprop(nonfinite="skip"), []

    class Tally:
        def take(self):
            def look():
                is_free.append(opt._state.lock.acquire(blocking=False))
                if is_free[-1]:
                    opt._state.lock.release()

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return 0

    opt._state.iterations.tally, opt._state.iterations.owner = Tally(), weakref.ref(opt._state)
    assert (opt.skipped, int(opt.iterations)) == (0, 0)
    assert is_free == [False, False]


def test_a_setting_made_while_another_thread_reads_it_is_not_lost():
    opt, started = RMSprop(rho=0.5), threading.Event()

    def assign():
        started.set()
        opt.rho = 0.25

    with opt._state.lock:  # as a step does
        thread = threading.Thread(target=assign)
        thread.start()
        started.wait()
        thread.join(0.1)
        is_waiting = thread.is_alive()
        opt._settings.read(0)
    thread.join()
    assert is_waiting
    assert opt._settings.read(0).rho == 0.25


USES = {
    "apply_gradients": lambda opt, v, path: opt.apply_gradients([(v, v)]),
    "build": lambda opt, v, path: opt.build([np.ones(3)]),
    "get_weights": lambda opt, v, path: opt.get_weights(),
    "set_weights": lambda opt, v, path: opt.set_weights([7, np.ones(3)]),
    "add_slot": lambda opt, v, path: opt.add_slot(v, "own"),
    "save": lambda opt, v, path: opt.save(path),
    "deepcopy": lambda opt, v, path: copy.deepcopy(opt),
}


@pytest.mark.parametrize("use", USES)
def test_who_reads_or_changes_state_waits_for_the_step_under_way(use, tmp_path):
    started, may_end = threading.Event(), threading.Event()

    def rate():
        started.set()
        may_end.wait(60)
        return 0.1

    opt, v = RMSprop(rate), np.ones(3)
    opt.build([v])
    both = [
        threading.Thread(target=opt.apply_gradients, args=([(v.copy(), v)],)),
        threading.Thread(target=USES[use], args=(opt, v, tmp_path / "x.safetensors")),
    ]
    both[0].start()
    started.wait(60)
    both[1].start()
    both[1].join(0.1)
    is_waiting = both[1].is_alive()
    may_end.set()
    for thread in both:
        thread.join()
    assert is_waiting


def test_locks_of_optimizers_that_are_gone_are_not_kept():
    before = len(locks.living())
    RMSprop()
    assert len(locks.living()) == before
