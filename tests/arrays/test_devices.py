"""Arrays that are not on their library's default device, or are spread over several: nothing moves them."""

import os
import subprocess
import sys
from contextlib import nullcontext

import array_api_strict
import numpy as np
import pytest

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable

FOUR_DEVICES = "--xla_force_host_platform_device_count=4"
OF_JAX = ["jax", "jax, nowhere in particular", "jax, spread"]
IS_CHILD = FOUR_DEVICES in os.environ.get("XLA_FLAGS", "")
SHAPE = 8, 4

rng = np.random.default_rng(0)
START, GRADIENT, OTHER = (rng.standard_normal(SHAPE).astype(np.float32) for _ in range(3))
ROWS = [1, 6, 1]


class Strict:
    """A device that is not the default one."""

    def __init__(self):
        self.device = array_api_strict.Device("device1")
        self.elsewhere = nullcontext

    def put(self, array):
        return array_api_strict.asarray(array, device=self.device)

    def is_home(self, array):
        return array.device == self.device


class Torch:
    """The CPU, while the default device is one that keeps no numbers."""

    def __init__(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
        self.elsewhere = lambda: self.torch.device("meta")

    def put(self, array):
        return self.torch.tensor(array, device="cpu")

    def is_home(self, array):
        return array.device.type == "cpu"


class JAX:
    """One of four devices, or all of them."""

    def __init__(self, kind):
        import jax

        self.jax, self.kind, self.elsewhere = jax, kind, nullcontext
        mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
        is_spread = "spread" in kind
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
        self.place = rows if is_spread else None if "nowhere" in kind else jax.devices()[3]

    def put(self, array):
        if self.place is None:
            return self.jax.numpy.asarray(array)
        return self.jax.device_put(
            array, self.place if np.shape(array)[:1] == (8,) or "spread" not in self.kind else None
        )

    def is_home(self, array):
        if self.place is None:
            return array.device == self.jax.devices()[0] and not array.committed
        place = array.sharding if "spread" in self.kind else array.device
        return place.is_equivalent_to(self.place, array.ndim) if "spread" in self.kind else place == self.place


PLACES = {
    "strict": Strict,
    "torch": Torch,
    **({kind: lambda kind=kind: JAX(kind) for kind in OF_JAX} if IS_CHILD else {}),
}


class Numpy:
    """What all are compared with."""

    def put(self, array):
        return np.array(array)

    def is_home(self, array):
        return True

    elsewhere = nullcontext


@pytest.fixture(params=PLACES)
def place(request):
    return PLACES[request.param]()


def check(place, work, **settings):
    """Do the same at a place and in NumPy; compare all numbers, and look where all arrays are."""
    results = []
    for where in (Numpy(), place):
        v = Variable(where.put(START), name="v")
        opt = RMSprop(0.1, **settings)
        with where.elsewhere():
            result = work(opt, v, where)
            v = v if result is None else result
        arrays = [v, *opt.weights[1:]]
        assert all([where.is_home(a.array) for a in arrays if a.shape == SHAPE])
        results.append([int(opt.iterations), *[a.numpy() for a in arrays]])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


VARIABLES = {
    "a copy": lambda v, where: Variable(v),
    "an array": lambda v, where: v.assign(OTHER),
    "a list": lambda v, where: v.assign(OTHER.tolist()),
    "an array of its own": lambda v, where: v.assign(where.put(OTHER)),
    "added array": lambda v, where: v.assign_add(OTHER),
    "subtracted list": lambda v, where: v.assign_sub(OTHER.tolist()),
    "variable": lambda v, where: v.assign_add(v).assign(v),
}
GRADIENTS = {
    "array": lambda where: where.put(GRADIENT),
    "list": lambda where: GRADIENT.tolist(),
    "rows": lambda where: IndexedSlices(where.put(GRADIENT[:3]), where.put(np.array(ROWS))),
    "listed rows": lambda where: IndexedSlices(GRADIENT[:3].tolist(), ROWS),
    "no rows": lambda where: IndexedSlices(where.put(GRADIENT[:0]), []),
}
SETTINGS = [
    {"momentum": 0.9, "centered": True, "clipvalue": 0.7, "clipnorm": 0.5, "nonfinite": "raise"},
    {"lazy": False, "centered": True, "global_clipnorm": 0.5, "nonfinite": "skip", "scale": 4.0},
]


@pytest.mark.parametrize("case", VARIABLES)
def test_values_are_brought_to_the_device_of_the_variable(place, case):
    check(place, lambda opt, v, where: VARIABLES[case](v, where))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_leaves_variables_and_slots_where_they_are(place, settings, gradient):
    def work(opt, v, where):
        if "scale" in settings:
            opt.loss_scale = LossScale(settings["scale"])
        for _ in range(2):
            opt.apply_gradients([(GRADIENTS[gradient](where), v)])

    check(place, work, **{name: value for name, value in settings.items() if name != "scale"})


def test_slots_and_weights_are_created_and_set_where_the_variable_is(place):
    def work(opt, v, where):
        opt.add_slot(v, "ones", "ones")
        opt.add_slot(v, "given", OTHER)
        opt.add_slot(v, "here", where.put(OTHER))
        opt.add_slot(v, "listed", OTHER.tolist())
        opt.add_slot(v, "made", lambda shape, dtype: np.full(shape, 2.0))
        opt.add_slot(v, "rms", abs(OTHER))
        opt.add_slot(v, "short", shape=(3,))
        opt.build([v])
        opt.set_weights([np.array(7), *[w.numpy() + 1 for w in opt.weights[1:]]])
        opt.apply_gradients([(where.put(GRADIENT), v)])

    check(place, work, momentum=0.9, centered=True)


def test_what_is_restored_is_brought_to_the_device_of_the_variable(place, tmp_path):
    path = tmp_path / "w.safetensors"

    def restore(opt, v, where):
        opt.apply_gradients([(where.put(GRADIENT), v)])
        opt.add_slot(v, "mine", OTHER)
        opt.save(path, [v])
        opt.apply_gradients([(where.put(GRADIENT), v)])
        opt.restore(path, [v])

    def load(opt, v, where):
        restore(opt, v, where)
        again = RMSprop.load(path)
        again.build([v])
        assert all([where.is_home(w.array) for w in again.weights[1:]])
        opt.set_weights(again.get_weights())

    def restore_anew(opt, v, where):
        restore(RMSprop(0.1, momentum=0.9), v, where)
        opt.restore(path, [v])

    for work in (restore, load, restore_anew):
        check(place, work, momentum=0.9)


def test_arrays_of_jax_stay_on_their_devices_and_spread_as_they_are():
    pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    if IS_CHILD:
        return
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__, "-k", "jax"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {FOUR_DEVICES}"
    child = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert child.returncode == 0, child.stdout
    assert "skipped" not in child.stdout
