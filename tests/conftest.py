"""Fixtures for all tests, and profiles of Hypothesis (``--hypothesis-profile=nightly`` for many examples)."""

import atexit
import importlib.util
import os
import shutil
import tempfile

import numpy
import pytest
from hypothesis import Phase, settings

# Before pytest, for the examples in docstrings, makes the classes of modules anew.
for name in ("numba", "array_api", *(["cupy"] if importlib.util.find_spec("cupy") else [])):
    importlib.import_module(f"rmsprop_{name}.step")

# Programs, which do their work when they are imported.
collect_ignore = ["checkpoints/programs", "distribute/programs", "mutants", "threads", "typed.py"]

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("nightly", deadline=None, max_examples=20_000)
settings.register_profile(  # for tests/mutants: the same examples each time, and the first that fails will do
    "mutants",
    deadline=None,
    max_examples=100,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("default")


def pytest_configure(config):
    """Let all workers, and the programs that tests start, share what is compiled, which takes most of the time."""
    if not hasattr(config, "workerinput") and "RMSPROP_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="rmsprop-kernels-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ.update(RMSPROP_CACHE="1", NUMBA_CACHE_DIR=folder)


def pytest_collection_modifyitems(config, items):
    """Leave long tests to `make nightly`; skip the examples in docstrings that need what is missing."""
    if config.getoption("hypothesis_profile") is None:
        left_out = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]
    for package, file, extra in (("torch", "torch_tape.py", "interop"), ("mpi4py", "distribute/mpi.py", "mpi")):
        if importlib.util.find_spec(package) is None:
            for item in items:
                if file in item.nodeid and isinstance(item, pytest.DoctestItem):
                    item.add_marker(pytest.mark.skip(reason=f"{package} is in the extra '{extra}'"))


@pytest.fixture
def example():
    """Return a function that imports an example by its name; skip without the packages of the extra 'demo'."""
    for package in ("matplotlib", "scipy", "skimage", "sklearn", "threadpoolctl", "tqdm"):
        pytest.importorskip(package, reason="the examples need the extra 'demo'")
    return importlib.import_module


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request, library_of):
    """Return the array library that a test is to use."""
    return library_of(request.param)


@pytest.fixture
def library_of():
    """Return a function that imports NumPy or CuPy by its name; skip without a device."""
    return _imported


def _imported(name):
    if name == "numpy":
        return numpy
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    return cupy
