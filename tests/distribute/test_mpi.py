"""Replicas over MPI: programs of several ranks, started by the mpiexec of the environment."""

import importlib.util
import re
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("mpi4py", reason="mpi4py is in the extra 'mpi'")

PROGRAMS = Path(__file__).parent / "programs"


def program(name):
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fault_table = program("fault_table")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Return a folder for kernels that are compiled once."""
    return tmp_path_factory.mktemp("kernels")  # not kept, since it does not notice all edits


@pytest.fixture
def mpiexec(cache):
    def run(ranks, name, *arguments):
        return fault_table.mpiexec(cache, ranks, PROGRAMS / name, *arguments)

    return run


@pytest.mark.parametrize(("ranks", "kind"), [(2, []), (4, []), (2, ["options"])], ids=str)
def test_replicas_train_as_one_process_does_that_adds_up_their_gradients(mpiexec, ranks, kind):
    done = mpiexec(ranks, "training.py", 12 if kind else 60, 1000, *kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same as one process") == ranks


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_strategy_keeps_what_it_promises(mpiexec, ranks):
    done = mpiexec(ranks, "behaviour.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("all promises kept") == ranks


@pytest.mark.parametrize("ranks", [1, 3])
def test_minimize_goes_data_parallel_with_all_stops_agreed(mpiexec, ranks):
    done = mpiexec(ranks, "minimizing.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("minimized") == ranks


def test_two_processes_classify_digits_as_well_as_one(mpiexec, tmp_path):
    pytest.importorskip("sklearn", reason="the examples need the extra 'demo'")
    path, output = PROGRAMS.parents[2] / "examples" / "digits.py", ("--mpi", "--output", tmp_path)
    accuracies = [mpiexec(n, path, *output).stdout for n in (1, 2)]
    one, two = (float(re.search(r"test images: ([\d.]+)", text)[1]) for text in accuracies)
    assert two > 0.95
    assert abs(one - two) < 0.01


def test_ptychography_is_divided_among_processes(mpiexec, tmp_path):
    pytest.importorskip("skimage", reason="the examples need the extra 'demo'")
    path = PROGRAMS.parents[2] / "examples" / "ptychography.py"
    done = mpiexec(2, path, "--mpi", "--small", "--output", tmp_path)
    assert float(re.search(r"RMSprop: relative error of the object ([\d.]+)", done.stdout)[1]) < 0.05, done.stderr
    assert (tmp_path / "ptychography.csv").is_file()


def test_the_program_in_the_readme_runs(mpiexec, tmp_path):
    text = (PROGRAMS.parents[2] / "README.md").read_text()
    (block,) = re.findall(r"^where `program.py` is.*?\n\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(block) + "print(np.round(x, 1))\n")
    done = mpiexec(2, path)
    assert done.stdout.count("[ 1.  -2.   0.5]") == 2, done.stderr


def test_a_process_that_is_forked_off_and_the_end_of_mpi_are_no_faults(mpiexec):
    done = mpiexec(2, "ending.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the end") == 2


@pytest.mark.gpu
def test_gradients_on_gpus_are_added_up_by_mpi_and_by_nccl(mpiexec):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    done = mpiexec(2, "on_gpu.py")
    assert done.stdout.count("as on the host") == 2, done.stderr
    if "NCCL is there" not in done.stdout:  # then there is a stand-in for it, which records, and fails in the end
        assert done.stdout.count("the error was seen") == 2, done.stderr


@pytest.mark.gpu
def test_state_on_gpus_is_sharded_beside_that_on_the_host(mpiexec):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    done = mpiexec(2, "on_gpu.py", "shares")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as on the host") == 2, done.stderr


SLOW = ("before", "at random", "stop in a sum")


@pytest.mark.parametrize("fault", [name for name in fault_table.FAULTS if not name.endswith(SLOW)])
def test_a_fault_on_one_rank_ends_the_job_and_the_step_is_applied_on_none(cache, fault):
    outcome = fault_table.attempt(fault, ranks=2, victim=1, step=3, cache=cache)
    assert not outcome.problems, outcome.text
