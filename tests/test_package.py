"""The package as a whole: what it imports, what it allocates, how it behaves when its backend is not ready."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import rmsprop
from rmsprop import IndexedSlices, RMSprop

SLOW = ["numba", "cupy", "autograd", "array_api_compat", "scipy", "torch", "jax", "rmsprop_numba"]


def loaded_after(code):
    check = f"import sys; {code}; print(*[m for m in {SLOW} if m in sys.modules])"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()


def test_import_loads_nothing_slow():
    assert loaded_after("import rmsprop") == []


def test_numba_is_loaded_by_the_first_array_and_autograd_by_the_first_tape():
    step = "import rmsprop, numpy; rmsprop.RMSprop().build([numpy.ones(1)])"
    assert "rmsprop_numba" in loaded_after(step)
    assert "autograd" not in loaded_after(step)
    assert "autograd" in loaded_after("import rmsprop\nwith rmsprop.GradientTape(): pass")


def test_public_names_are_documented():
    for name in rmsprop.__all__:
        assert getattr(rmsprop, name).__doc__
    for name in dir(RMSprop):
        if not name.startswith("_"):
            assert getattr(RMSprop, name).__doc__, name


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True}, {"global_clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_a_steady_step_allocates_no_array(settings, size):
    v, g = np.ones(size, np.float32), np.ones(size, np.float32)
    opt = RMSprop(**settings)
    for _ in range(3):
        opt.apply_gradients([(g, v)])
    tracemalloc.start()
    try:
        for _ in range(10):
            opt.apply_gradients([(g, v)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What is left are small objects of Python, and for a norm two numbers for each 4,096 elements.
    assert peak < 8_000 + size * 40 / 4_096 * ("global_clipnorm" in settings)


def test_sparse_work_grows_with_the_rows_used_not_with_the_table():
    table = np.zeros((200_000, 16), np.float32)
    g = IndexedSlices(np.ones((10, 16), np.float32), np.arange(10))
    opt = RMSprop(momentum=0.9, centered=True)
    opt.apply_gradients([(g, table)])
    tracemalloc.start()
    try:
        opt.apply_gradients([(g, table)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000  # the table has 12,800,000 bytes


def test_it_is_typed():
    assert rmsprop.__file__ is not None
    from importlib.resources import files

    for package in ("rmsprop", "rmsprop_numba", "rmsprop_shared", "rmsprop_array_api"):
        assert (files(package) / "py.typed").is_file()
