"""Trajectories recorded from tf_keras.optimizers.legacy.RMSprop, followed step by step."""

import json
from pathlib import Path

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop
from rmsprop.arrays.libraries import to_numpy

DATA = Path(__file__).parent / "data" / "keras_reference"
RECORD = json.loads((DATA / "cases.json").read_text())
CASES = {case["name"]: case for case in RECORD["cases"]}

ULPS_PER_STEP = 4
HALF_TOLERANCE = 5e-3
"""The reference computes float16 in float16, we in float32: they differ by a few units of 2**-11 per step."""


class OfTorch:
    """The functions that are used here, for tensors of PyTorch."""

    def __init__(self):
        self.torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")

    def array(self, numbers):
        return self.torch.from_numpy(np.array(numbers))

    asarray = array


@pytest.fixture(params=["numpy", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request, library_of):
    return OfTorch() if request.param == "torch" else library_of(request.param)


@pytest.fixture(scope="module")
def arrays():
    return dict(np.load(DATA / "arrays.npz"))


def through_float32(config):
    """Round hyperparameters to float32, as the reference does even for float64 variables."""
    rounded = {k: float(np.float32(config[k])) for k in ("learning_rate", "rho", "momentum", "decay")
               if not isinstance(config[k], dict)}  # fmt: skip
    return config | rounded


def gradient_of(arrays, case, i, t, xp=np):
    if f"{case}/idx{i}/{t}" in arrays:
        return IndexedSlices(*(xp.asarray(arrays[f"{case}/{part}{i}/{t}"]) for part in ("val", "idx")))
    dense = arrays.get(f"{case}/grad{i}/{t}")
    return None if dense is None else xp.asarray(dense)


def follow(arrays, case, optimizer, xp):
    """Yield step, variable index, and the variable before, after and as recorded."""
    name = case["name"]
    variables = [xp.array(arrays[f"{name}/var{i}/0"]) for i in range(case["n_vars"])]
    for t in range(1, case["steps"] + 1):
        before = [to_numpy(v) for v in variables]
        optimizer.apply_gradients([(gradient_of(arrays, name, i, t, xp), v) for i, v in enumerate(variables)])
        for i, v in enumerate(variables):
            yield t, i, before[i], to_numpy(v), arrays[f"{name}/var{i}/{t}"]


def assert_within_ulps(got, expected, size, ulps):
    unit = np.spacing(np.abs(size).astype(got.dtype))
    difference = np.abs(got.astype(np.longdouble) - expected.astype(np.longdouble))
    assert (difference <= ulps * unit.astype(np.longdouble)).all(), (difference / unit).max()


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["dtype"] != "float16"])
def test_trajectory_is_that_of_keras_within_4_ulp_per_step(arrays, name, xp):
    case = CASES[name]
    # These came from TensorFlow's own handling of sparse gradients, which decays the rows not listed.
    lazy = not case["keras_decays_untouched_rows"]
    optimizer = RMSprop.from_config(through_float32(case["config"]) | {"lazy": lazy})
    largest = {}  # so far: what was lost when a variable was large stays lost when it crosses zero
    for t, i, before, got, expected in follow(arrays, case, optimizer, xp):
        size = np.maximum(np.abs(expected), np.abs(expected - before))
        largest[i] = np.maximum(size, largest.get(i, np.abs(before)))
        assert_within_ulps(got, expected, largest[i], ULPS_PER_STEP * t)
    recorded = [arrays[f"{name}/weights/{k}"] for k in range(case["n_weights"])]
    assert optimizer.iterations == recorded[0] == case["steps"]
    for k, (slot, got, expected) in enumerate(
        zip(slots_of(case), optimizer.get_weights()[1:], recorded[1:], strict=True)
    ):
        size = np.maximum(np.abs(expected), smallest_term(case, slot, expected, recorded[1 + k % case["n_vars"]]))
        assert_within_ulps(got, expected, size, ULPS_PER_STEP * case["steps"])


def slots_of(case):
    config = case["config"]
    names = ["rms", *["momentum"] * bool(config["momentum"]), *["mg"] * config["centered"]]
    return [name for name in names for _ in range(case["n_vars"])]


def smallest_term(case, slot, expected, rms):
    """Return the size of what a slot sums up: its rounding stays when terms of either sign cancel."""
    if slot == "mg":
        return np.sqrt(rms)
    return np.abs(expected).max() if slot == "momentum" or case["sparse"] else 0.0


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["dtype"] == "float16"])
def test_float16_trajectory_is_near_that_of_keras(arrays, name, xp):
    case = CASES[name]
    optimizer = RMSprop.from_config(through_float32(case["config"]))
    for t, _, _, got, expected in follow(arrays, case, optimizer, xp):
        np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=0, atol=HALF_TOLERANCE * t)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c["keras_decays_untouched_rows"]])
def test_rows_that_are_not_listed_keep_every_bit_by_default(arrays, name):
    optimizer = RMSprop.from_config(CASES[name]["config"])
    table = arrays[f"{name}/var0/0"].copy()
    optimizer.build([table])
    for t in range(1, CASES[name]["steps"] + 1):
        gradient = gradient_of(arrays, name, 0, t)
        before = [table.copy(), *(w for w in optimizer.get_weights()[1:])]
        optimizer.apply_gradients([(gradient, table)])
        untouched = np.setdiff1d(np.arange(len(table)), gradient.indices)
        for old, new in zip(before, [table, *optimizer.get_weights()[1:]], strict=True):
            assert old[untouched].tobytes() == new[untouched].tobytes()


@pytest.mark.parametrize("name", ["dense_m0.9_c1_float32", "sparse_m0.9_c0_float32", "sched_cosine_warmup"])
def test_weights_of_keras_load_and_come_back_unchanged(arrays, name, xp):
    case = CASES[name]
    optimizer = RMSprop.from_config(case["config"])
    optimizer.build([xp.array(arrays[f"{name}/var{i}/{case['steps']}"]) for i in range(case["n_vars"])])
    weights = [arrays[f"{name}/weights/{k}"] for k in range(case["n_weights"])]
    optimizer.set_weights(weights)
    for ours, theirs in zip(optimizer.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("name", CASES)
def test_configuration_of_keras_loads_and_comes_back_unchanged(name):
    config = CASES[name]["config"]
    ours = RMSprop.from_config(config).get_config()
    assert json.loads(json.dumps(ours)) == config
    assert list(ours) == list(config)


# Recorded in float64, with hyperparameters rounded to float32; the slots in the order of the weights.
GOLDEN = {
    (0.0, False): ([0.6974772833852853, 1.771397997609449], [[0.008910001866817414, 0.029140006752014117]]),
    (0.0, True): (
        [0.6766121674687422, 1.7547411164367888],
        [None, [0.03510000722408268, 0.05720001301765428]],
    ),
    (0.9, False): ([0.4240323473845117, 1.5996953038858048], [None, [0.2198672773895557, 0.198419449756363]]),
    (0.9, True): (
        [0.39485776368223724, 1.575595148168838],
        [None, [0.23231101575450472, 0.21146556909316727], None],
    ),
}


@pytest.mark.parametrize(("momentum", "centered"), GOLDEN)
def test_golden_values_of_the_reference(momentum, centered):
    rounded = {"learning_rate": 0.05, "rho": 0.9, "momentum": momentum}
    optimizer = RMSprop(**{k: float(np.float32(v)) for k, v in rounded.items()}, epsilon=1e-3, centered=centered)
    v = np.array([1.0, 2.0])
    for g in [[0.1, 0.2], [0.3, -0.1], [0.0, 0.5]]:
        optimizer.apply_gradients([(np.array(g), v)])
    variable, slots = GOLDEN[momentum, centered]
    np.testing.assert_allclose(v, variable, rtol=4e-15)
    for got, expected in zip(optimizer.get_weights()[1:], slots, strict=True):
        if expected is not None:
            np.testing.assert_allclose(got, expected, rtol=4e-15)
