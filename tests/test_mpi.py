"""Replicas over MPI: programs of several ranks, started by the mpiexec of the environment."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mpi4py", reason="mpi4py is in the extra 'mpi'")

PROGRAMS = Path(__file__).parent / "replicas"
MPIEXEC = shutil.which("mpiexec", path=Path(sys.executable).parent) or "mpiexec"


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Return variables of the environment for ranks: one thread each, and kernels that are compiled once."""
    cache = tmp_path_factory.mktemp("kernels")  # not kept, since it does not notice all edits
    one = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **one, "RMSPROP_CACHE": "1", "NUMBA_CACHE_DIR": str(cache)}


@pytest.fixture
def mpiexec(environment):
    def run(ranks, program, *arguments):
        command = [
            MPIEXEC,
            "-n",
            str(ranks),
            sys.executable,
            "-W",
            "error",
            PROGRAMS / program,
            *map(str, arguments),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=80, env=environment)

    return run


@pytest.mark.parametrize("ranks", [2, 4])
def test_replicas_train_as_one_process_does_that_adds_up_their_gradients(mpiexec, ranks):
    done = mpiexec(ranks, "training.py", 60, 1000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same as one process") == ranks


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_strategy_keeps_what_it_promises(mpiexec, ranks):
    done = mpiexec(ranks, "behaviour.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all promises kept") == ranks


def test_two_processes_classify_digits_as_well_as_one(mpiexec):
    pytest.importorskip("sklearn", reason="the examples need the extra 'demo'")
    accuracies = [mpiexec(n, PROGRAMS.parents[1] / "examples" / "digits.py", *["--mpi"]).stdout for n in (1, 2)]
    one, two = (float(re.search(r"test images: ([\d.]+)", text)[1]) for text in accuracies)
    assert two > 0.95
    assert abs(one - two) < 0.01


def test_ptychography_is_divided_among_processes(mpiexec, tmp_path):
    pytest.importorskip("skimage", reason="the examples need the extra 'demo'")
    path = PROGRAMS.parents[1] / "examples" / "ptychography.py"
    done = mpiexec(2, path, "--mpi", "--small", "--output", tmp_path)
    assert float(re.search(r"error of the object ([\d.]+)", done.stdout)[1]) < 0.05, done.stderr
    assert (tmp_path / "ptychography.csv").is_file()


def test_the_program_in_the_readme_runs(mpiexec, tmp_path):
    text = (PROGRAMS.parents[1] / "README.md").read_text()
    (block,) = re.findall(r"^where `program.py` is.*?\n\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(block) + "print(np.round(x, 1))\n")
    done = mpiexec(2, path)
    assert done.stdout.count("[ 1.  -2.   0.5]") == 2, done.stderr


@pytest.mark.gpu
def test_gradients_on_gpus_are_added_up_by_mpi_and_by_nccl(mpiexec):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    done = mpiexec(2, "on_gpu.py")
    assert done.stdout.count("as on the host") == 2, done.stderr
    if "NCCL is there" not in done.stdout:  # then there is a stand-in for it, which records, and fails in the end
        assert done.stdout.count("the error was seen") == 2, done.stderr


def program(name):
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAULTS = {
    "raise": r"rank 1: ValueError: the loss is too sad",
    "exit": r"rank 1 is at the end of the program, rank 0 at step 3",
    "end": r"rank 1 is at the end of the program, rank 0 at step 3",
    "os_exit": r"rank 1 of 2 .* was killed, has crashed, or has called os._exit",
    "kill": r"rank 1 of 2 .* was killed",
    "hang": r"rank 1 has not answered within 3 s",
    "shape": r"rank 1 has variable 0 \(float64, shape \(9,\)\)",
    "dtype": r"rank 1: TypeError: Gradient of variable 0 .* complex128",
    "fewer": r"rank 1 has 1 variables; rank 0 has 2 variables",
    "none": r"rank 1: ValueError: No gradients provided",
    "empty": r"rank 1 has 0 variables; rank 0 has 2 variables",
    "kill in a sum": r"rank 1 of 2 .* was killed",
    "error in a sum": r"rank 1: MemoryError: no memory left",
    "stop in a sum": r"rank 1 has not answered within 3 s",
    "stop in an exchange": r"rank 1 has not answered within 3 s",
}
OPTIONS = {"error in a sum": ["overlap"], "stop in a sum": ["overlap"], "stop in an exchange": ["shard_state"]}
SILENT = ("os_exit", "kill", "kill in a sum")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_one_rank_ends_the_job_and_the_step_is_applied_on_none(mpiexec, tmp_path, fault):
    faults, options = program("faults"), OPTIONS.get(fault, [])
    begin = time.monotonic()
    done = mpiexec(2, "faults.py", fault, tmp_path, *options)
    assert re.search(FAULTS[fault], done.stderr), done.stdout + done.stderr
    assert done.returncode != 0 or fault == "os_exit"  # for which mpiexec may return what was given
    assert time.monotonic() - begin < 40  # a hang would take 1,000 s
    np.testing.assert_array_equal(np.fromfile(tmp_path / "0"), state_before_the_fault(faults, 2))
    assert ("rank 0: unchanged by step 3" in done.stderr) == (fault not in SILENT)


def state_before_the_fault(faults, ranks):
    """Return what the variables are after the steps that no rank failed in."""
    variables = {name: faults.start(name) for name in faults.SIZES}
    opt = faults.optimizer()
    for step in range(faults.FAULTY_STEP):
        sums = [sum(faults.gradient(name, rank, step) for rank in range(ranks)) for name in variables]
        opt.apply_gradients(zip(sums, variables.values(), strict=True))
    return np.concatenate([*variables.values()])
