"""Runs recorded from torch, optax, Keras 3, timm, JAX and autograd, followed by the conventions of these names."""

import json
from collections import namedtuple
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest

from rmsprop import RMSprop, Variable, conventions
from rmsprop.arrays.libraries import to_numpy
from rmsprop.schedules import LearningRateSchedule

DATA = Path(__file__).parents[1] / "data" / "peer_reference"
CASES = {case["name"]: case for case in json.loads((DATA / "cases.json").read_text())["cases"]}
WITH_STATE = [name for name, case in CASES.items() if case["state"]]

ULPS_PER_STEP = 4
ULPS_ILL_CONDITIONED = 2e4


class Table(LearningRateSchedule):
    """The learning rate of each step, as it was recorded."""

    def __init__(self, rates):
        self.rates = rates

    def __call__(self, step):
        return self.rates[min(int(step), len(self.rates) - 1)]


class Run(NamedTuple):
    """What an optimizer did to its variables; `reached` has them after each step."""

    optimizer: RMSprop
    reached: list[list[Any]]


@pytest.fixture(params=["numpy", "torch", "array_api_strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def library(request):
    if request.param == "torch":
        pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    if request.param == "cupy":
        cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
        if not cupy.cuda.is_available():
            pytest.skip("no CUDA device")
    return request.param


@cache
def arrays():
    return dict(np.load(DATA / "arrays.npz"))


def recorded(name, what):
    return [arrays()[f"{name}/{what}{i}"] for i in range(CASES[name]["n_vars"])]


def made(case):
    arguments = dict(case["arguments"])
    if case["rates"] is not None:
        rate = next(name for name in ("learning_rate", "lr", "step_size") if name in arguments)
        arguments[rate] = Table(case["rates"])
    return getattr(conventions, case["function"])(**arguments)


def of_torch(array):
    import torch

    return torch.from_numpy(np.array(array))


@cache
def followed(name, library):
    makers = {"array_api_strict": lambda: array_api_strict.asarray, "torch": lambda: of_torch}
    asarray = makers.get(library, lambda: pytest.importorskip(library).array)()
    variable = (lambda start: Variable(asarray(start))) if library == "array_api_strict" else asarray
    optimizer, variables = made(CASES[name]), [variable(run[0]) for run in recorded(name, "var")]
    reached = []
    for t in range(CASES[name]["steps"]):
        gradients = [asarray(gradient[t]) for gradient in recorded(name, "grad")]
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        reached.append([to_numpy(v.array if isinstance(v, Variable) else v) for v in variables])
    return Run(optimizer, reached)


def is_ill_conditioned(case):
    """Tell whether the first variance is the difference of two numbers that are equal."""
    return case["arguments"].get("bias_correction") and case["arguments"]["centered"]


def precision_of(case):
    """Return the dtype of the real numbers; Keras computes factors of clipping in float32, for float64, too."""
    limits = [case["arguments"].get(name) for name in ("clipnorm", "global_clipnorm")]
    is_single = case["function"] == "keras" and limits != [None, None]
    return np.float32 if is_single else np.finfo(case["dtype"]).dtype


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_that_of_the_framework_within_4_ulp_per_step(name, library):
    case = CASES[name]
    for t, reached in enumerate(followed(name, library).reached, 1):
        for got, run in zip(reached, recorded(name, "var"), strict=True):
            largest = np.abs(run[: t + 1]).max(0)  # what was lost when it was large stays lost when it is small
            ulps = ULPS_ILL_CONDITIONED if is_ill_conditioned(case) else ULPS_PER_STEP * t
            assert_near(got, run[t], largest, ulps, precision_of(case))


def assert_near(got, expected, size, ulps, precision):
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    unit = np.spacing(np.abs(size).astype(precision)).astype(np.float64)
    assert (np.abs(got - expected) <= ulps * unit).all(), (np.abs(got - expected) / unit).max()


def test_each_framework_was_recorded():
    functions = [case["function"] for case in CASES.values()]
    counts = {name: functions.count(name) for name in sorted({*functions})}
    assert counts == {"autograd": 1, "jax": 4, "keras": 39, "optax": 74, "timm": 28, "torch": 46}


# State


def state_dict(case):
    """Return what the optimizer of torch or timm would have saved."""
    states = {i: {} for i in range(case["n_vars"])}
    for key in case["state"]:
        i, _, name = key.partition("/")
        states[int(i)][name] = arrays()[f"{case['name']}/state/{key}"]
    return {"state": states, "param_groups": [{**case["arguments"], "params": list(states)}]}


def optax_state(case):
    """Return nested tuples of these fields, as optax has them."""
    fields = {}
    for key in case["state"]:
        name, _, i = key.partition("/")
        value = arrays()[f"{case['name']}/state/{key}"]
        if i:
            fields.setdefault(name, {})[f"w{i}"] = value
        else:
            fields[name] = value
    trace = [namedtuple("TraceState", ["trace"])(fields.pop("trace"))] if "trace" in fields else []  # noqa: PYI024
    return (namedtuple("ScaleByRms", fields)(**fields), (), *trace)  # noqa: PYI024


class KerasVariable(np.ndarray):
    path: str


def keras_variables(case):
    variables = []
    for key, path in zip(case["state"], case["paths"], strict=True):
        variables.append(np.asarray(arrays()[f"{case['name']}/state/{key}"]).view(KerasVariable))
        variables[-1].path = path
    return variables


def weights_of_peer(case):
    if case["function"] == "keras":
        return conventions.weights_from_keras(keras_variables(case))
    if case["function"] == "optax":
        return conventions.weights_from_optax(optax_state(case))
    return conventions.weights_from_torch(state_dict(case))


def assert_same_weights(case, got, expected):
    """Compare weights, whose rounding is that of the numbers that they were summed up from."""
    n = case["n_vars"]
    optimizer = made(case)
    step = float(optimizer.current_learning_rate) if optimizer.momentum_includes_lr else 1.0
    names = ["rms", *["momentum"] * bool(case["arguments"]["momentum"]), *["mg"] * case["arguments"]["centered"]]
    assert len(got) == len(expected) == 1 + n * len(names)
    for k, (a, b) in enumerate(zip(got[1:], expected[1:], strict=True)):
        name, rms = names[k // n], as_reals(expected[1 + k % n])
        a, b = as_reals(a), as_reals(b)
        size = {"rms": b, "momentum": np.maximum(np.abs(b), step), "mg": np.sqrt(rms.max())}[name]
        ulps = ULPS_ILL_CONDITIONED if is_ill_conditioned(case) else ULPS_PER_STEP * case["steps"]
        assert_near(a, b, size, ulps, precision_of(case))


def as_reals(array):
    array = np.asarray(array)
    return np.stack([array.real, array.imag]) if array.dtype.kind == "c" else array


@pytest.mark.parametrize("name", WITH_STATE)
def test_the_state_at_the_end_of_a_run_is_that_of_the_framework(name, library):
    case = CASES[name]
    theirs, ours = weights_of_peer(case), followed(name, library).optimizer.get_weights()
    counts = case["function"] != "optax" or "count" in case["state"]
    assert int(theirs[0]) == (int(ours[0]) if counts else 0)
    assert [weight.dtype for weight in theirs] == [weight.dtype for weight in ours]
    assert_same_weights(case, ours, theirs)


@pytest.mark.parametrize("name", [name for name in WITH_STATE if CASES[name]["function"] in ("torch", "timm")])
def test_the_state_for_torch_is_what_torch_had_at_the_end_of_the_run(name):
    pytest.importorskip("torch", reason="in the extra 'interop'")
    case, theirs = CASES[name], state_dict(CASES[name])
    ours = conventions.weights_to_torch(followed(name, "numpy").optimizer, theirs)
    assert ours["param_groups"] == theirs["param_groups"]
    for i, state in theirs["state"].items():
        assert {*ours["state"][i]} == {*state}
        assert float(ours["state"][i]["step"]) == float(state["step"])
    assert_same_weights(case, conventions.weights_from_torch(ours), conventions.weights_from_torch(theirs))


@pytest.mark.parametrize("name", [name for name in WITH_STATE if CASES[name]["function"] == "optax"])
def test_the_state_for_optax_is_what_optax_had_at_the_end_of_the_run(name):
    case, theirs = CASES[name], optax_state(CASES[name])
    transformation = SimpleNamespace(init=lambda params: theirs)
    ours = conventions.weights_to_optax(followed(name, "numpy").optimizer, transformation, None)
    assert [type(part) for part in ours] == [type(part) for part in theirs]
    for part, other in zip(ours[::2], theirs[::2], strict=True):
        assert [np.asarray(part.nu[w]).dtype for w in getattr(part, "nu", ())] == [
            np.asarray(other.nu[w]).dtype for w in getattr(other, "nu", ())
        ]
    got, expected = conventions.weights_from_optax(ours), conventions.weights_from_optax(theirs)
    assert got[0] == expected[0]
    assert_same_weights(case, got, expected)


@pytest.mark.parametrize("name", [name for name in WITH_STATE if CASES[name]["function"] == "keras"])
def test_the_state_for_keras_is_what_keras_had_at_the_end_of_the_run(name):
    case, theirs = CASES[name], keras_variables(CASES[name])
    ours = conventions.weights_to_keras(followed(name, "numpy").optimizer)
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    assert ours[0] == theirs[0]
    has_rate = case["paths"][1].endswith("/learning_rate")
    assert has_rate == (case["rates"] is None)
    if has_rate:
        assert np.float32(ours.pop(1)) == np.float32(theirs.pop(1))
    assert_same_weights(case, ours, [np.asarray(b) for b in theirs])
