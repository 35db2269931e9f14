"""The conformance suite, on every backend there is; and how a backend is chosen."""

import os
import subprocess
import sys

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from rmsprop.backends import backend_of
from rmsprop.testing import BackendTests


class TestNumba(BackendTests):
    dtypes = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")

    @pytest.fixture
    def asarray(self):
        return np.asarray


class TestArrayAPIStrict(BackendTests):
    @pytest.fixture
    def asarray(self):
        return array_api_strict.asarray


class TestTorch(BackendTests):
    dtypes = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")

    @pytest.fixture
    def asarray(self):
        torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")

        def from_numpy(array):
            if array.dtype == ml_dtypes.bfloat16:
                return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
            return torch.from_numpy(array.copy())

        return from_numpy


class TestJAX(BackendTests):
    dtypes = ("float16", "bfloat16", "float32", "complex64")

    @pytest.fixture
    def asarray(self):
        jnp = pytest.importorskip("jax.numpy", reason="JAX is in the extra 'interop'")
        return lambda array: jnp.asarray(array.astype(np.int32) if array.dtype == int else array)


# Dask's `take` of complex arrays casts an empty array, used for its dtype only, to real and warns of it.
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
class TestDask(BackendTests):
    dtypes = ("float16", "float32", "float64", "complex64", "complex128")

    @pytest.fixture
    def asarray(self):
        return pytest.importorskip("dask.array", reason="Dask is in the extra 'interop'").asarray


def test_every_kind_of_array_gets_its_backend():
    assert backend_of(np.ones(1)).__name__ == "rmsprop_numba"
    assert backend_of(array_api_strict.ones(1)).__name__ == "rmsprop_array_api"


def test_what_is_no_array_has_no_backend():
    with pytest.raises(TypeError, match="str"):
        backend_of("array")


THIRD_PARTY = """
from rmsprop_array_api import *
from rmsprop_array_api import prepare as _prepare

calls = []

def prepare(parameters, gradients, factors, hyper):
    calls.append(len(parameters))
    return _prepare(parameters, gradients, factors, hyper)
"""

USE_OF_THIRD_PARTY = """
import array_api_strict as xp, rmsprop, rmsprop_strict
v = rmsprop.Variable(xp.ones(3))
rmsprop.RMSprop(learning_rate=0.1).apply_gradients([(xp.ones(3), v)])
assert rmsprop_strict.calls == [1]
assert abs(v.numpy()[0] - 0.68377233) < 1e-6
"""


def test_a_package_adds_a_backend_by_its_entry_point(tmp_path):
    (tmp_path / "rmsprop_strict.py").write_text(THIRD_PARTY)
    info = tmp_path / "rmsprop_strict-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rmsprop-strict\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rmsprop.backends]\narray_api_strict = rmsprop_strict\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", USE_OF_THIRD_PARTY], env=environment, check=True)
    assert "rmsprop_strict" not in sys.modules
