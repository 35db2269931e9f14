"""The conformance suite, on every backend there is; and how a backend is chosen."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

import rmsprop_array_api
import rmsprop_numba
from rmsprop import IndexedSlices, RMSprop, Variable, backends
from rmsprop.backends import backend_of
from rmsprop.testing import BackendTests
from rmsprop.testing.backend_tests import CLIPPING

ROOT = Path(__file__).parents[2]


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

    @pytest.mark.parametrize("is_sparse", [False, True])
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"clipnorm": 0.5, "clipvalue": 0.4},
            {"global_clipnorm": 0.5, "momentum": 0.9},
            {"nonfinite": "skip", "centered": True},
            {"nonfinite": "raise", "clipnorm": 0.5, "momentum": 0.9, "centered": True},
            {"lazy": False, "centered": True, "complex_as_real": True},
        ],
        ids=str,
    )
    def test_nothing_is_recorded_of_gradients_that_require_grad(self, asarray, dtype, settings, is_sparse):
        numbers = np.array([[0.5, -1.0], [2.0, 0.25]]).astype(np.float32)
        steps = []
        for is_followed in (False, True):
            v = Variable(asarray(numbers.astype(dtype)))
            opt = RMSprop(0.1, **settings)
            gradient = asarray(numbers.astype(dtype)).requires_grad_(is_followed)
            gradient = gradient * 2  # which is no leaf
            for _ in range(2):
                opt.apply_gradients(
                    [(IndexedSlices(gradient, asarray(np.array([1, 0]))) if is_sparse else gradient, v)]
                )
            assert not any(w.array.requires_grad for w in (v, *opt.weights[1:]))
            assert gradient.requires_grad == is_followed
            steps.append([v.numpy(), *opt.get_weights()])
        for a, b in zip(*steps, strict=True):
            np.testing.assert_array_equal(a, b)


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


def of_several_libraries():
    """Return a maker of arrays for each of several libraries and devices."""
    makers = [np.asarray, array_api_strict.asarray]
    device = array_api_strict.Device("device1")
    makers.append(lambda numbers: array_api_strict.asarray(numbers, device=device))
    if importlib.util.find_spec("torch"):
        import torch

        makers.append(lambda numbers: torch.asarray(numbers.copy()))
    if importlib.util.find_spec("jax"):
        import jax.numpy as jnp

        makers.append(jnp.asarray)
    return makers


def on_host(variable):
    array = variable.array
    if type(array).__module__.startswith("array_api_strict"):
        array = array.to_device(array_api_strict.Device("CPU_DEVICE"))
    return np.asarray(array)


@pytest.mark.parametrize("settings", [{}, *CLIPPING, {"clipnorm": 0.8, "nonfinite": "raise"}], ids=str)
def test_one_list_may_be_spread_over_libraries_and_devices(settings):
    starts = [np.random.default_rng(k).standard_normal(4).astype(np.float32) for k in range(5)]
    makers = of_several_libraries()
    one = [Variable(make(start)) for make, start in zip(makers, starts, strict=False)]
    two = [Variable(start) for start in starts[: len(one)]]
    devices = [getattr(v.array, "device", None) for v in one]
    for variables, makers_of in ((one, makers), (two, [np.asarray] * len(two))):
        opt = RMSprop(0.05, momentum=0.5, **settings)
        for k in range(2):
            opt.apply_gradients(
                [(make(g + k), v) for make, g, v in zip(makers_of, starts, variables, strict=False)]
            )
    assert [getattr(v.array, "device", None) for v in one] == devices
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(on_host(a), on_host(b), rtol=2e-6)


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
@pytest.mark.parametrize("settings", [{}, {"global_clipnorm": 1.0}], ids=str)
def test_a_gradient_of_any_library_that_is_not_finite_stops_the_whole_list(settings, nonfinite):
    makers = of_several_libraries()
    for bad in range(len(makers)):
        variables = [Variable(make(np.ones(3, np.float32))) for make in makers]
        numbers = [np.where(k == bad, [1, np.nan, 2], [1, 1, 1]).astype(np.float32) for k in range(len(makers))]
        opt = RMSprop(0.1, nonfinite=nonfinite, **settings)
        pairs = [(make(n), v) for make, n, v in zip(makers, numbers, variables, strict=True)]
        if nonfinite == "raise":
            with pytest.raises(FloatingPointError, match=f"variable {bad} "):
                opt.apply_gradients(pairs)
        else:
            opt.apply_gradients(pairs)
            assert opt.skipped == 1
        assert all((on_host(v) == 1).all() for v in variables)


def test_every_kind_of_array_gets_its_backend():
    assert backend_of(np.ones(1)) is rmsprop_numba.backend
    assert backend_of(array_api_strict.ones(1)) is rmsprop_array_api.backend


def test_what_is_no_array_has_no_backend():
    with pytest.raises(TypeError, match="str"):
        backend_of("array")


IN_PLACE = """
from types import SimpleNamespace
from pathlib import Path

from rmsprop.formula import NEUTRAL
from rmsprop_array_api import ArrayAPIBackend


class InPlace(ArrayAPIBackend):
    "A backend of a third party for array_api_strict, which writes into arrays instead of replacing them."

    in_place = True
    memory = staticmethod(id)

    def __init__(self):
        self.calls = []

    def prepare(self, parameters, gradients, factors, hyper):
        self.calls.append(len(parameters))
        twins = [self._twin(parameter) for parameter in parameters]
        super().prepare(twins, gradients, factors, hyper)()  # nothing of the caller's changes

        def take():
            for parameter, twin in zip(parameters, twins, strict=True):
                parameter.variable.array[...] = twin.variable.array
                for name, slot in parameter.slots.items():
                    slot.array[...] = twin.slots[name].array

        return take

    def _twin(self, parameter):
        slots = {name: SimpleNamespace(array=slot.array) for name, slot in parameter.slots.items()}
        variable = SimpleNamespace(array=parameter.variable.array)
        return SimpleNamespace(variable=variable, slots=slots, multipliers=NEUTRAL)


backend = InPlace()
"""


def install(folder, source, value="rmsprop_strict:backend", name="array_api_strict"):
    """Put a package with a backend into a folder, as installers do."""
    (folder / "rmsprop_strict.py").write_text(source)
    info = folder / "rmsprop_strict-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rmsprop-strict\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rmsprop.backends]\n{name} = {value}\n")


@contextmanager
def installed(folder, *args, **kwargs):
    install(folder, *args, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.delitem(sys.modules, "rmsprop_strict", raising=False)
        backends._load.cache_clear()
        try:
            yield
        finally:
            backends._load.cache_clear()
            sys.modules.pop("rmsprop_strict", None)


@pytest.fixture(scope="class")
def in_place(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("site"), IN_PLACE):
        yield


@pytest.mark.usefixtures("in_place")
class TestInPlace(TestArrayAPIStrict):
    def test_variables_and_slots_keep_their_arrays(self, asarray):
        w, v = asarray(np.ones(2)), Variable(asarray(np.ones(3)))
        opt = RMSprop(0.1, momentum=0.9)
        opt.build([w, v])
        arrays = [v.array, *[weight.array for weight in opt.weights]]
        for _ in range(2):
            opt.apply_gradients([(asarray(np.ones(2)), w), (asarray(np.ones(3)), v)])
        v.assign(np.zeros(3))
        opt.set_weights(opt.get_weights())
        assert all(
            a is b for a, b in zip([v.array, *[weight.array for weight in opt.weights]], arrays, strict=True)
        )
        assert float(w[0]) < 1
        with pytest.raises(AttributeError, match="can't be replaced"):
            v.array = asarray(np.ones(3))

    @pytest.mark.parametrize("other", [np.asarray, array_api_strict.asarray])
    def test_a_constraint_that_raises_leaves_no_trace(self, asarray, other):
        w, v = asarray(np.ones(2)), Variable(other(np.ones(3)))
        opt = RMSprop(0.1, momentum=0.9)
        pairs = [(asarray(np.ones(2)), w), (other(np.ones(3)), v)]
        opt.apply_gradients(pairs)
        before = [np.asarray(w).copy(), v.numpy(), *opt.get_weights()]
        v.constraint = lambda array: 1 / 0
        with pytest.raises(ZeroDivisionError):
            opt.apply_gradients(pairs)
        for a, b in zip([np.asarray(w), v.numpy(), *opt.get_weights()], before, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_files_are_restored_into_the_same_arrays(self, asarray, tmp_path):
        w, v = asarray(np.ones(2)), Variable(asarray(np.ones(3)), name="v")
        opt = RMSprop(0.1, momentum=0.9)
        pairs, arrays = [(asarray(np.ones(2)), w), (asarray(np.ones(3)), v)], (w, v.array)
        opt.apply_gradients(pairs)
        opt.save(tmp_path / "x.safetensors", {"w": w, "v": v})
        opt.apply_gradients(pairs)
        later = [np.asarray(w).copy(), v.numpy(), *opt.get_weights()]
        opt.restore(tmp_path / "x.safetensors", {"w": w, "v": v})
        assert float(w[0]) > later[0][0]
        assert v.array is arrays[1]
        opt.apply_gradients(pairs)
        for a, b in zip([np.asarray(w), v.numpy(), *opt.get_weights()], later, strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_backend_says_whether_arrays_are_updated_in_place():
    assert backend_of(np.ones(1)).in_place
    assert not backend_of(array_api_strict.ones(1)).in_place


USE_OF_THIRD_PARTY = """
import array_api_strict as xp, rmsprop, rmsprop_strict
v = rmsprop.Variable(xp.ones(3))
array = v.array
rmsprop.RMSprop(learning_rate=0.1).apply_gradients([(xp.ones(3), v)])
assert rmsprop_strict.backend.calls == [1]
assert v.array is array
assert abs(v.numpy()[0] - 0.68377233) < 1e-6
"""


def test_a_package_adds_a_backend_by_its_entry_point(tmp_path):
    install(tmp_path, IN_PLACE)
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = os.environ | {"PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", USE_OF_THIRD_PARTY], env=environment, check=True)
    assert "rmsprop_strict" not in sys.modules


def test_an_entry_point_that_names_no_backend_is_told(tmp_path):
    with installed(tmp_path, IN_PLACE, value="rmsprop_strict"), pytest.raises(TypeError) as error:
        RMSprop().apply_gradients([(array_api_strict.ones(1), Variable(array_api_strict.ones(1)))])
    assert "array_api_strict = 'rmsprop_strict' of rmsprop.backends names a module" in str(error.value)
    assert "expected an instance of a subclass of rmsprop.backends.Backend" in str(error.value)


def test_no_package_takes_the_place_of_this_projects_backends(tmp_path):
    with installed(tmp_path, IN_PLACE, name="numpy"):
        assert backend_of(np.ones(1)) is rmsprop_numba.backend


def test_the_metadata_name_the_same_backends():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][backends.GROUP] == backends.OWN


def test_an_incomplete_backend_is_refused_when_it_is_made():
    class Incomplete(backends.Backend):
        in_place = True

    with pytest.raises(TypeError, match="prepare"):
        Incomplete()
