"""Environments in which imports and steps work: modes of the interpreter, zips, caches that can't be used."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from rmsprop import backends

ROOT = Path(__file__).parents[3]
STEP = """
import numpy as np, rmsprop
w = np.full(10, 2.0, np.float32)
opt = rmsprop.RMSprop(0.1)
opt.apply_gradients([(w.copy(), w)])
assert_ = None if abs(w - 1.683772).max() < 1e-5 and int(opt.iterations) == 1 else 1 / 0
"""


CACHE = ("RMSPROP_CACHE", "NUMBA_CACHE_DIR")  # which the tests share, but these here


def run(code, *options, **variables):
    """Run a step after some code; return what is written to stderr."""
    command = [sys.executable, *options, "-c", code + STEP]
    present = {name: value for name, value in os.environ.items() if name not in CACHE}
    env = {**present, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_modes_of_the_interpreter_make_no_difference():
    assert not run("", "-OO", "-W", "error", "-X", "dev")


ABSENT = """
import sys
OPTIONAL = (
    "array_api_strict cupy dask jax joblib matplotlib ml_dtypes mpi4py optax safetensors scipy skimage sklearn "
    "tbb tensorflow tf_keras threadpoolctl torch tqdm"
)
class Absent:
    def find_spec(name, path=None, target=None):
        if name in OPTIONAL.split():
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent)
import autograd.numpy as anp, numpy as np, rmsprop
x = np.ones(3)
opt = rmsprop.RMSprop(momentum=0.9, global_clipnorm=1.0)
opt.minimize(lambda x: anp.sum(x**2), [x])
opt.save(PATH, [x])
opt.restore(PATH, [x])
"""


def test_no_optional_dependency_is_needed_to_differentiate_and_save(tmp_path):
    assert not run(ABSENT.replace("PATH", repr(str(tmp_path / "x.safetensors"))))


@pytest.mark.parametrize(("cache", "told"), [(0, ""), (1, "not kept on disk")])
def test_a_read_only_installation_without_a_home_suffices(cache, told, tmp_path):
    packages = tmp_path / "packages"
    for root in (ROOT, ROOT / "backends"):
        for package in root.glob("rmsprop*/"):
            shutil.copytree(package, packages / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [packages, *packages.rglob("*/")]:
        (folder / "__pycache__").touch()  # so that not even root can write one
        folder.chmod(0o500)
    home = packages / "__pycache__" / "home"
    homes = dict.fromkeys(["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE"], home)
    code = (
        f"import sys; sys.path.insert(0, {str(packages)!r}); import rmsprop; assert 'packages' in rmsprop.__file__"
    )
    written = run(code, "-W", "error", RMSPROP_CACHE=cache, **homes)
    assert told in written
    assert bool(told) == bool(written)


def test_a_zip_of_the_packages_alone_can_be_imported(tmp_path):
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for root in (ROOT, ROOT / "backends"):
            for file in root.glob("rmsprop*/**/*.py"):
                zipped.write(file, file.relative_to(root))
    assert not run(
        f"import sys, importlib.metadata; sys.path.insert(0, {str(archive)!r})\n"
        f"found = importlib.metadata.entry_points\n"
        f"importlib.metadata.entry_points = lambda **k: [] if 'rmsprop' in str(k) else found(**k)\n"
        f"import rmsprop, rmsprop_numba; assert '.zip' in rmsprop.__file__ and '.zip' in rmsprop_numba.__file__"
    )


def test_the_source_distribution_has_all_that_a_checkout_has():
    """The tests read the documentation, the examples and the benchmarks."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    always = {"pyproject.toml", "README.md", "LICENSE", ".gitignore"}
    assert {file.split("/")[0] for file in files.split()} - always - {".ci"} == {*build["sdist"]["include"]}


def test_entry_points_stand_in_the_code_as_they_are_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["rmsprop.backends"] == backends.OWN


def test_a_cache_without_a_directory_to_write_to_costs_no_more_than_the_cache():
    nowhere = "import numba.core.caching as c; c.CacheImpl._locator_classes = []"
    assert "not kept on disk" in run(nowhere, "-W", "error", RMSPROP_CACHE=1)


def test_damaged_files_of_the_cache_are_replaced(tmp_path):
    run("", RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path)
    files = [f for f in tmp_path.rglob("*.nb*") if f.parent.name.startswith("rmsprop_numba")]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "is replaced" in run("", RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path)
    assert "is replaced" not in run("", RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path)


def test_a_kernel_for_several_threads_is_not_taken_from_the_cache_for_one_thread(tmp_path):
    layer = (
        "import atexit, sys, numba, numpy as np, rmsprop\n"
        "def layer():\n"
        "    try: return numba.threading_layer()\n"
        "    except ValueError: return 'none'\n"
        "atexit.register(lambda: sys.stderr.write('layer: ' + layer()))\n"
        "w = np.ones(SIZE); rmsprop.RMSprop(global_clipnorm=1.0).apply_gradients([(w, w)])"
    )
    found = [
        run(layer.replace("SIZE", size), RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path) for size in ("300_000", "10")
    ]
    assert "none" not in found[0]
    assert found[1] == "layer: none"


def test_a_kernel_is_not_taken_from_the_cache_if_what_it_calls_has_changed(tmp_path):
    for package in (ROOT / "rmsprop", ROOT / "backends" / "rmsprop_numba"):
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    packages = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    scalars = tmp_path / "rmsprop_numba" / "scalars.py"
    run(packages, RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path / "cache")
    code = scalars.read_text()
    scalars.write_text(code.replace("return lambda x: x * x", "return lambda x: 4 * x * x"))
    assert scalars.read_text() != code
    halved = packages + "\nw = numpy = __import__('numpy').full(10, 2.0, 'f')\nimport rmsprop\n"
    halved += "rmsprop.RMSprop(0.1).apply_gradients([(w.copy(), w)]); assert abs(w - 1.841886).max() < 1e-5"
    with pytest.raises(AssertionError, match="ZeroDivisionError"):  # by the step that follows
        run(halved, RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path / "cache")


def test_a_cache_that_can_no_longer_be_written_to_does_not_stop_a_step(tmp_path):
    full = (
        "import numba.core.caching as c, errno\n"
        "def full(*a): raise OSError(errno.ENOSPC, 'full')\n"
        "c.IndexDataCacheFile._open_for_write = full"
    )
    assert "can't be kept" in run(full, RMSPROP_CACHE=1, NUMBA_CACHE_DIR=tmp_path)
