"""The formula stands in one place: slots and numbers are those of `rmsprop.formula`, wherever they are spelt."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import rmsprop_numba.kernels
from rmsprop import RMSprop, Variable
from rmsprop.arrays import dtypes
from rmsprop.formula import SLOTS, Numbers, Slot, VariableState, needed_slots, stepped
from rmsprop.testing import hyper_of

ROOT = Path(__file__).parents[1]
FORMULAS = [{}, {"momentum": 0.9}, {"centered": True}, {"momentum": 0.9, "centered": True}]


@pytest.fixture
def another_slot(monkeypatch):
    """Let there be one more slot, which steps with momentum need and no kernel uses."""
    monkeypatch.setitem(SLOTS, "more", Slot(lambda needs: needs.momentum, averages_squares=True))
    needed_slots.cache_clear()
    yield
    monkeypatch.undo()
    needed_slots.cache_clear()


def test_arrays_of_a_state_are_a_variable_and_its_slots_in_order():
    assert (*VariableState._fields, "accumulator") == ("variable", *SLOTS)


def test_the_compiled_formula_takes_slots_and_numbers_in_order():
    sweep, stepped = (getattr(rmsprop_numba.kernels, name).py_func for name in ("sweep", "stepped"))
    slots = [name for name in inspect.signature(sweep).parameters if name in SLOTS]
    assert slots == [name for name in SLOTS if name != "accumulator"]
    lines = re.findall(r"    (.*) = numbers\[(.*)\]\n", inspect.getsource(stepped) + inspect.getsource(sweep))
    for names, place in lines:
        assert tuple(names.split(", ")) == eval(f"Numbers._fields[{place}]", {"Numbers": Numbers})
    assert len(lines) == 3


@pytest.mark.parametrize("settings", FORMULAS)
def test_the_slots_that_are_created_are_those_that_the_step_needs(settings):
    opt, v = RMSprop(**settings), np.ones(3)
    opt.build([v])
    hyper = opt._settings.read(0)
    assert opt.get_slot_names() == [*hyper.slots]
    slots = {name: opt.get_slot(v, name) for name in hyper.slots}
    assert hyper.used(slots) == [slots.get(name) for name in VariableState._fields[1:]]


@pytest.mark.usefixtures("another_slot")
@pytest.mark.parametrize("state_dtype", [None, "bfloat16", "uint8"])
def test_a_slot_that_is_declared_is_created_kept_checked_saved_and_restored(tmp_path, state_dtype):
    opt, v = RMSprop(momentum=0.9, state_dtype=state_dtype), np.ones(64, np.float32)
    opt.build([v])
    assert opt.get_slot_names() == ["rms", "momentum", "more"]
    opt.set_weights([np.full(w.shape, k) for k, w in enumerate(opt.weights)])
    opt.save(tmp_path / "saved", [v])
    again, w = RMSprop.load(tmp_path / "saved"), np.zeros(64, np.float32)
    again.build([w])
    np.testing.assert_array_equal(again.get_slot(w, "more").numpy(), 3)
    for position, name in enumerate(["rms", "momentum", "more"], 1):
        negative = again.get_weights()
        negative[position] = -negative[position]
        if name == "momentum":
            again.set_weights(negative)
            continue
        with pytest.raises(ValueError, match="average of squares"):
            again.set_weights(negative)


@pytest.mark.usefixtures("another_slot")
def test_a_slot_that_is_declared_has_the_dtype_that_its_rule_gives():
    for complex_as_real in (False, True):
        opt, v = RMSprop(momentum=0.9, complex_as_real=complex_as_real), np.ones(2, np.complex64)
        opt.build([v])
        assert opt.get_slot(v, "more").dtype == (np.complex64 if complex_as_real else np.float32)


def test_an_average_of_squares_is_known_by_its_slot_and_not_by_what_it_is_called():
    opt, v = RMSprop(), Variable(np.ones(2))
    opt.build([v])
    opt.add_slot(v, "my/rms")
    opt.get_slot(v, "rms").name = "another"
    opt.set_weights([np.array(0), np.ones(2), -np.ones(2)])
    with pytest.raises(ValueError, match="'another' is an average of squares"):
        opt.set_weights([np.array(0), -np.ones(2), np.ones(2)])


@pytest.mark.parametrize("dtype", dtypes.COMPUTE)
def test_slots_have_the_dtype_of_the_computation_and_averages_of_squares_its_real_part(dtype):
    compute = dtypes.COMPUTE[dtype]
    assert SLOTS["momentum"].dtype(dtype, False) == SLOTS["mg"].dtype(dtype, False) == compute
    assert SLOTS["rms"].dtype(dtype, True) == compute
    assert SLOTS["rms"].dtype(dtype, False) == compute.replace("complex64", "float32").replace(
        "complex128", "float64"
    )


def test_a_step_is_that_of_the_paper():
    state = VariableState(*(np.array([x], np.longdouble) for x in (10, 4, 3, 1)))
    numbers = hyper_of(RMSprop(0.5, rho=0.75, momentum=0.5, epsilon=1.0, epsilon_in_sqrt=False)).numbers_of()
    after = stepped(np, state, np.array([5], np.longdouble), numbers)
    # rms = .75 * 4 + .25 * 25, mg = .75 * 1 + .25 * 5, step = .5 * 5 / (sqrt(rms - mg**2) + 1)
    momentum = 0.5 * 3 + 2.5 / (np.sqrt(np.longdouble(9.25 - 4)) + 1)
    assert after == VariableState(10 - momentum, 9.25, momentum, 2.0, None)


def strings(path):
    """Return all strings in the code of a file."""
    return {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}


@pytest.mark.parametrize("place", ["rmsprop", "backends"])
def test_the_names_of_slots_are_spelt_in_the_formula_alone(place):
    spelt = {*SLOTS, "/rms"} - {"momentum"}  # which is also the name of a setting
    files = {path for path in (ROOT / place).rglob("*.py") if path.parent.name != "conventions"}  # translate them
    found = {path.name for path in files if strings(path) & spelt}
    assert found <= {"formula.py", "oracle.py", "backend_tests.py"}  # how far off each may be, and what to look at
