"""Promises of `rmsprop.schedules`."""

import copy
import inspect
import json
import math
import pickle
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsprop import GradientTape, Variable
from rmsprop.arrays.libraries import to_numpy
from rmsprop.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
    deserialize,
    serialize,
)

CASES = Path(__file__).parents[1] / "data" / "keras_reference" / "cases.json"
RECORDED = json.loads(CASES.read_text())["schedules"]

GOLDEN_STEPS = (0, 2, 3, 5, 10, 15, 31)
GOLDEN = [
    (ExponentialDecay(0.1, 10, 0.5), (0.1, 0.08705506, 0.08122524, 0.07071068, 0.05, 0.03535534, 0.01166291)),
    (ExponentialDecay(0.1, 10, 0.5, staircase=True), (0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.0125)),
    (PiecewiseConstantDecay([2, 5], [0.1, 0.2, 0.3]), (0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3)),
    (PolynomialDecay(0.1, 10, 0.01, 2), (0.1, 0.0676, 0.0541, 0.0325, 0.01, 0.01, 0.01)),
    (PolynomialDecay(0.1, 10, 0.01, 2, True), (0.1, 0.0676, 0.0541, 0.0325, 0.01, 0.015625, 0.01455625)),
    (InverseTimeDecay(0.1, 10, 0.5), (0.1, 0.09090909, 0.08695652, 0.08, 0.06666667, 0.05714286, 0.03921569)),
    (InverseTimeDecay(0.1, 10, 0.5, staircase=True), (0.1, 0.1, 0.1, 0.1, 0.06666667, 0.06666667, 0.04)),
    (CosineDecay(0.1, 10, 0.1), (0.1, 0.09140576, 0.08145034, 0.055, 0.01, 0.01, 0.01)),
    (CosineDecay(0, 10, 0.1, warmup_target=0.5, warmup_steps=5), (0, 0.2, 0.3, 0.5, 0.275, 0.05, 0.05)),
    (
        CosineDecayRestarts(0.1, 10, 2, 0.5, 0.1),
        (0.1, 0.09140576, 0.08145034, 0.055, 0.055, 0.04840991, 0.03246532),
    ),
    (
        CosineDecayRestarts(0.1, 10, 1, 0.5, 0.1),
        (0.1, 0.09140576, 0.08145034, 0.055, 0.055, 0.0325, 0.02097469),
    ),
]
SCHEDULES = [schedule for schedule, _ in GOLDEN]
KERAS_SIGNATURES = {
    ExponentialDecay: "initial_learning_rate, decay_steps, decay_rate, staircase=False, name=None",
    PiecewiseConstantDecay: "boundaries, values, name=None",
    PolynomialDecay: (
        "initial_learning_rate, decay_steps, end_learning_rate=0.0001, power=1.0, cycle=False, name=None"
    ),
    InverseTimeDecay: "initial_learning_rate, decay_steps, decay_rate, staircase=False, name=None",
    CosineDecay: ("initial_learning_rate, decay_steps, alpha=0.0, name=None, warmup_target=None, warmup_steps=0"),
    CosineDecayRestarts: ("initial_learning_rate, first_decay_steps, t_mul=2.0, m_mul=1.0, alpha=0.0, name=None"),
}

GROWING = ["1", "1.001", "1.01", "1.1", "1.25", "1.3", "1.5", "1.7", "2", "2.5", "3", "7", "10"]
SHRINKING = ["0.99", "0.9", "0.75", "0.7", "0.5", "0.2", "0.1"]

rates = st.floats(0, 10) | st.integers(0, 10)
factors = st.floats(-1, 1)  # of which no power overflows
positives = st.floats(1e-3, 1e6) | st.integers(1, 10**6)
names = st.none() | st.text(max_size=5)
any_piecewise = st.lists(st.integers(0, 1000) | st.floats(0, 1000), unique=True, min_size=1).flatmap(
    lambda steps: st.builds(
        PiecewiseConstantDecay,
        st.just(sorted(steps)),
        st.lists(rates, min_size=len(steps) + 1, max_size=len(steps) + 1),
        names,
    )
)
any_schedule = st.one_of(
    st.builds(ExponentialDecay, rates, positives, st.floats(0, 1), st.booleans(), names),
    any_piecewise,
    st.builds(PolynomialDecay, rates, positives, rates, st.floats(0, 5), st.booleans(), names),
    st.builds(InverseTimeDecay, rates, positives, st.floats(0, 1), st.booleans(), names),
    st.builds(CosineDecay, rates, positives, factors, names, st.none() | rates, st.integers(0, 10**6)),
    st.builds(CosineDecayRestarts, rates, positives, st.floats(0.1, 3), factors, factors, names),
)


class Custom(LearningRateSchedule):
    """A custom schedule around another one, as warm-ups are usually written."""

    def __init__(self, inner, factor):
        """Keep the arguments."""
        self.inner, self.factor = inner, factor

    def __repr__(self):
        return f"Custom({self.inner!r}, {self.factor!r})"

    def __call__(self, step):
        return self.factor * self.inner(step)

    def get_config(self):
        """Return what Keras would accept, which `json` would not."""
        return {"inner": self.inner, "factor": np.float32(self.factor)}

    @classmethod
    def from_config(cls, config):
        """Empty `config`, as careless classes do."""
        return cls(deserialize(config.pop("inner")), config.pop("factor"))


def restart_value(step, first, t_mul, m_mul, alpha):
    """Return the value of CosineDecayRestarts(1, ...) with the cycle found in exact arithmetic."""
    cycle, start, length = 0, Fraction(0), Fraction(first)
    while start + length <= step:
        cycle, start, length = cycle + 1, start + length, length * t_mul
    wave = 1 + math.cos(math.pi * float((step - start) / length))
    return (1 - alpha) * m_mul**cycle * wave / 2 + alpha


def whole_cycles(t_mul):
    """Return a first length and restarts that are whole numbers, of cycles up to 1e8 steps."""
    count = max(n for n in range(1, 31) if 7 * t_mul.denominator ** (n - 1) * max(1, t_mul) ** n <= 1e8)
    first = 7 * t_mul.denominator ** (count - 1)
    restarts = [sum((first * t_mul**k for k in range(i)), Fraction(0)) for i in range(count + 1)]
    assert all(restart.denominator == 1 for restart in restarts)
    return first, [int(restart) for restart in restarts]


# ------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("case", RECORDED)
def test_values_are_those_recorded_from_keras(case):
    schedule = deserialize(RECORDED[case]["config"])
    values = [schedule(step) for step in RECORDED[case]["steps"]]
    assert values == pytest.approx(RECORDED[case]["values"], rel=1e-6)


@pytest.mark.parametrize(("schedule", "values"), GOLDEN, ids=str)
def test_values_are_those_of_the_reference_table(schedule, values):
    assert [schedule(step) for step in GOLDEN_STEPS] == pytest.approx(values, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_value_is_a_python_float_whatever_holds_the_step(schedule):
    class Counter:
        def __int__(self):
            return 7

    steps = [7, 7.0, np.int64(7), np.uint8(7), np.float32(7), np.array(7), Fraction(7), Counter()]
    values = [schedule(step) for step in steps]
    assert {type(value) for value in values} == {float}
    assert set(values) == {schedule(7)}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize(
    "step", [None, "7", b"7", True, np.True_, 1j, np.complex64(7), [7], range(3), np.array("7")]
)
def test_step_that_is_no_number_is_refused(schedule, step):
    with pytest.raises(TypeError, match="step must be a real number, or an array"):
        schedule(step)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("step", [math.nan, math.inf, -math.inf, 10**400, np.float32("nan")], ids="{!r:.9}".format)
def test_step_that_is_not_finite_is_refused(schedule, step):
    for each in (step, np.array([0.0, step], object)):
        with pytest.raises(ValueError, match="step must be finite"):
            schedule(each)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("make", [float, int, np.float16, np.int64])
def test_a_variable_is_taken_for_its_value(schedule, make):
    assert schedule(Variable(make(7))) == schedule(7)
    counter = Variable(make(7))
    with GradientTape():  # in which a variable reads as a traced value
        assert schedule(counter) == schedule(7)


LIBRARIES = ["numpy", "array_api_strict", "torch", "jax.numpy", "dask.array"]
PLOTTED = [*SCHEDULES, Custom(Custom(CosineDecay(0.1, 10), 0.5), 2.0)]


@pytest.mark.parametrize("schedule", PLOTTED, ids=str)
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_array_of_steps_gives_an_array_of_its_library_with_the_rate_of_each(schedule, library):
    lib = pytest.importorskip(library, reason="in the extra 'interop'")
    steps = lib.reshape(lib.arange(40), (8, 5))
    rates = schedule(steps)
    assert type(rates) is type(steps)
    assert rates.shape == (8, 5)
    each = [[schedule(5 * row + column) for column in range(5)] for row in range(8)]
    np.testing.assert_allclose(to_numpy(rates), each, rtol=0 if library in ("numpy", "torch") else 1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("schedule", PLOTTED, ids=str)
def test_an_array_of_steps_on_a_gpu_gives_one_there(schedule):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    rates = schedule(cupy.arange(40))
    assert isinstance(rates, cupy.ndarray)
    assert rates.get().tolist() == [schedule(step) for step in range(40)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32, object, "bfloat16"], ids=str)
def test_steps_of_any_real_dtype_give_rates_in_double_precision(dtype):
    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    for schedule in SCHEDULES:
        rates = schedule(np.arange(40).astype(dtype))
        assert rates.dtype == np.float64
        assert rates.tolist() == [schedule(step) for step in range(40)]
        assert schedule(np.arange(0)).shape == (0,)
        assert schedule(np.array([7])).tolist() == [schedule(7)]


def test_a_variable_of_several_steps_gives_an_array():
    assert CosineDecay(0.1, 10)(Variable([0, 5])).tolist() == [0.1, 0.05]


def test_a_masked_array_of_steps_is_refused():
    with pytest.raises(TypeError, match="MaskedArray"):
        CosineDecay(0.1, 10)(np.ma.array([1, 2], mask=[0, 1]))


@given(schedule=any_schedule, step=st.floats(0, 1.7e308))
@settings(max_examples=400, deadline=None)
def test_no_step_is_too_big(schedule, step):
    assert math.isfinite(schedule(step))


@pytest.mark.parametrize(
    "schedule",
    [
        ExponentialDecay(0.1, 1e-3, 0.5, staircase=True),
        PolynomialDecay(0.1, 1e-3, 0.1, cycle=True),
        InverseTimeDecay(0.1, 1e-3, 0.0),
        CosineDecayRestarts(0.1, 1e-3, 1.0, 0.9, alpha=1),
        CosineDecayRestarts(0.1, 1e-3, 10.0, 0.9, alpha=1),
    ],
    ids=str,
)
def test_a_step_of_more_periods_than_a_float_can_count_gives_a_rate(schedule):
    assert schedule(1.7e308) in (0.0, 0.1)


def test_negative_steps_continue_the_formula_as_in_keras():
    """Keras's own tests ask for step -999; composed schedules ask for them in the branch that `where` drops."""
    assert PiecewiseConstantDecay([100, 110], [1.0, 0.1, 0.01])(Variable(-999.0)) == 1.0
    assert ExponentialDecay(0.1, 10, 0.5)(-10) == 0.2
    assert PolynomialDecay(0.1, 10, 0.0)(-5) == pytest.approx(0.15)
    assert CosineDecayRestarts(0.1, 10, 2.0)(-5) == pytest.approx(0.1)  # the start of a cycle of 5 steps
    assert math.isnan(CosineDecayRestarts(0.1, 10, 2.0)(-10))  # before all such cycles


class TestWarmUpAlone:
    """`CosineDecay` with 0 steps of decay."""

    SCHEDULE = CosineDecay(0.0, 0, 0.25, warmup_target=10.0, warmup_steps=1500)

    def test_it_rises_as_in_the_tests_of_keras(self):
        steps = range(0, 1500, 250)
        assert [self.SCHEDULE(step) for step in steps] == pytest.approx([step / 150 for step in steps])

    def test_it_ends_at_alpha_times_the_target(self):
        assert [self.SCHEDULE(step) for step in (1500, 1501, 10**18)] == [2.5] * 3
        assert CosineDecay(0.0, 0, warmup_target=10.0, warmup_steps=1500)(1500) == 0.0
        assert CosineDecay(0.0, 0, 1.0, warmup_target=10.0, warmup_steps=1500)(1500) == 10.0
        assert CosineDecay(0.3, 0, 0.5, warmup_target=10.0)(0) == 5.0

    def test_it_is_saved_and_read(self):
        assert deserialize(json.loads(json.dumps(serialize(self.SCHEDULE)))) == self.SCHEDULE

    def test_without_a_warm_up_there_must_be_steps(self):
        with pytest.raises(ValueError, match="decay_steps must be greater than 0"):
            CosineDecay(0.1, 0, warmup_steps=5)
        with pytest.raises(ValueError, match="decay_steps must not be negative"):
            CosineDecay(0.1, -1, warmup_target=1.0, warmup_steps=5)


@given(schedule=any_schedule, step=st.integers(0, 10**18))
@settings(max_examples=80, deadline=None)
def test_rate_that_decays_is_finite_at_any_step(schedule, step):
    assert math.isfinite(schedule(step))


@pytest.mark.parametrize(
    ("schedule", "value"),
    [
        (ExponentialDecay(0.1, 10, 0.5), 0.0),
        (ExponentialDecay(0.1, 10, 1.5), math.inf),
        (ExponentialDecay(-0.1, 10, 1.5), -math.inf),
        (PiecewiseConstantDecay([2, 5], [0.1, 0.2, 0.3]), 0.3),
        (PolynomialDecay(0.1, 10, 0.01, 0.5), 0.01),
        (PolynomialDecay(0.1, 10, 0.01, 0.5, cycle=True), 0.01),
        (InverseTimeDecay(0.1, 10, 0.5), 0.1 / (1 + 0.5e17)),
        (CosineDecay(0.1, 10, 0.1, None, 0.5, 5), 0.05),
        (CosineDecayRestarts(1, 10, 2, 0.9, 0.1), restart_value(10**18, 10, 2, 0.9, 0.1)),
        (CosineDecayRestarts(1, 10, 1, 0.5, 0.1), 0.1),
        (CosineDecayRestarts(1, 10, 1, 2.0, 0.1), math.inf),
        (CosineDecayRestarts(1, 10, 0.5, 2.0, 0.1), 0.1),
    ],
    ids=str,
)
def test_step_1e18_gives_the_right_limit(schedule, value):
    assert schedule(10**18) == pytest.approx(value, rel=1e-9)


def test_piecewise_boundary_belongs_to_the_value_before_it():
    schedule = PiecewiseConstantDecay([2, 5.5], [1, 2, 3])
    assert [schedule(step) for step in (2, 2.1, 5, 5.5, 6)] == [1, 2, 2, 2, 3]


def test_polynomial_cycle_ends_at_every_multiple_of_decay_steps():
    schedule = PolynomialDecay(0.1, 0.3, 0.01, power=0.5, cycle=True)
    assert schedule(0) == 0.1
    assert {PolynomialDecay(0.1, 7, 0.01, 0.5, True)(7 * k) for k in range(1, 1000)} == {0.01}
    assert all(0.01 <= schedule(0.3 * k) < 0.1 for k in range(1, 1000))  # never the root of a negative number


def test_polynomial_with_power_zero_never_falls():
    assert {PolynomialDecay(0.1, 10, 0.0, power=0)(step) for step in (0, 5, 10, 11)} == {0.1}


def test_formulas_without_a_real_value_give_inf_or_nan_as_in_keras():
    assert PolynomialDecay(0.1, 10, 0.01, power=-1)(10) == math.inf
    assert InverseTimeDecay(0.1, 10, -0.5)(20) == math.inf
    assert InverseTimeDecay(-0.1, 10, -0.5)(20) == -math.inf
    assert math.isnan(ExponentialDecay(0.1, 10, -0.5)(5))
    assert ExponentialDecay(0.1, 10, -0.5)(10) == -0.05
    assert ExponentialDecay(0.1, 1, -2.0)(10**4) == math.inf
    assert ExponentialDecay(0.1, 1, -2.0)(10**4 + 1) == -math.inf


def test_cosine_warmup_is_ignored_without_a_target():
    steps = range(30)
    plain, ignored = CosineDecay(0.1, 10), CosineDecay(0.1, 10, warmup_steps=5)
    assert [ignored(step) for step in steps] == [plain(step) for step in steps]


def test_cosine_warmup_of_zero_steps_starts_at_its_target():
    schedule = CosineDecay(0.1, 10, warmup_target=0.5)
    assert [schedule(step) for step in range(12)] == [CosineDecay(0.5, 10)(step) for step in range(12)]


# ---------------------------------------------------------------------------------------------- restarts


@pytest.mark.parametrize("t_mul", [*GROWING, *SHRINKING])
def test_restart_happens_at_its_very_step(t_mul):
    first, restarts = whole_cycles(Fraction(t_mul))
    schedule = CosineDecayRestarts(1, first, float(t_mul), m_mul=0.9, alpha=0.1)
    assert [schedule(step) for step in restarts[:-1]] == pytest.approx(
        [0.9 * 0.9**i + 0.1 for i in range(len(restarts) - 1)], rel=1e-12
    )
    steps = sorted({max(0, restart + near) for restart in restarts[:-1] for near in (-1, 0, 1)})
    exact = [restart_value(step, first, Fraction(t_mul), 0.9, 0.1) for step in steps]
    assert [schedule(step) for step in steps] == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("first", [1, 3, 10, 49, 1000])
@pytest.mark.parametrize("t_mul", [1, 2, 3])
def test_every_step_is_in_the_cycle_of_exact_arithmetic(first, t_mul):
    schedule = CosineDecayRestarts(1, first, t_mul, m_mul=0.9, alpha=0.1)
    exact = [restart_value(step, first, t_mul, 0.9, 0.1) for step in range(300)]
    assert [schedule(step) for step in range(300)] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("first", [0.1, 100 / 3, 1e-3, 7.7])
def test_restart_survives_a_first_cycle_that_is_no_whole_number(first):
    schedule = CosineDecayRestarts(1, first, 1, m_mul=0.99, alpha=0.1)
    assert [schedule(first * i) for i in range(200)] == pytest.approx(
        [0.9 * 0.99**i + 0.1 for i in range(200)], rel=1e-12
    )


def test_restarts_are_continuous_in_t_mul_around_one():
    values = [[CosineDecayRestarts(1, 10, t)(s) for s in (3, 14, 27)] for t in (1 - 1e-13, 1, 1 + 1e-13)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[2] == pytest.approx(values[1], rel=1e-9)


def test_shrinking_cycles_end_at_alpha():
    schedule = CosineDecayRestarts(0.1, 16, t_mul=0.5, alpha=0.25)
    assert schedule(31) == pytest.approx(0.1)
    assert [schedule(step) for step in (32, 33, 1000)] == [0.025] * 3


# --------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("cls", KERAS_SIGNATURES)
def test_arguments_have_the_names_order_and_defaults_of_keras(cls):
    parameters = inspect.signature(cls).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    assert ", ".join(map(str, bare)) == KERAS_SIGNATURES[cls]


def bad(cls, argument, value, error=ValueError):
    """Return a case: `cls` with good arguments but for one."""
    return pytest.param(cls, argument, value, error, id=f"{cls.__name__}-{argument}={value!r:.20}")


GOOD = {
    ExponentialDecay: {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5},
    PiecewiseConstantDecay: {"boundaries": [2, 5], "values": [0.1, 0.2, 0.3]},
    PolynomialDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
    InverseTimeDecay: {"initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5},
    CosineDecay: {"initial_learning_rate": 0.1, "decay_steps": 10},
    CosineDecayRestarts: {"initial_learning_rate": 0.1, "first_decay_steps": 10},
}
NUMBERS = {
    ExponentialDecay: ["initial_learning_rate", "decay_steps", "decay_rate"],
    PolynomialDecay: ["initial_learning_rate", "decay_steps", "end_learning_rate", "power"],
    InverseTimeDecay: ["initial_learning_rate", "decay_steps", "decay_rate"],
    CosineDecay: ["initial_learning_rate", "decay_steps", "alpha", "warmup_target", "warmup_steps"],
    CosineDecayRestarts: ["initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha"],
}
BAD = [
    *[bad(cls, a, v) for cls in NUMBERS for a in NUMBERS[cls] for v in (math.nan, -math.inf, 10**400)],
    *[
        bad(cls, a, v, TypeError)
        for cls in NUMBERS
        for a in NUMBERS[cls]
        for v in ("0.1", True, 1j, np.complex64(1), [0.1], np.ones(1), np.array(True))
    ],
    *[
        bad(cls, a, v)
        for cls in NUMBERS
        for a in NUMBERS[cls]
        if a in ("decay_steps", "first_decay_steps", "t_mul")
        for v in (0, -3, np.float32(0))
    ],
    *[bad(cls, a, None, TypeError) for cls in NUMBERS for a in NUMBERS[cls] if a != "warmup_target"],
    *[bad(cls, "name", 0.5, TypeError) for cls in GOOD],
    bad(ExponentialDecay, "staircase", "false", TypeError),
    bad(InverseTimeDecay, "staircase", 0.5, TypeError),
    bad(PolynomialDecay, "cycle", 2, TypeError),
    bad(CosineDecay, "warmup_steps", -1),
    bad(PiecewiseConstantDecay, "boundaries", [2, 2]),
    bad(PiecewiseConstantDecay, "boundaries", [5, 2]),
    bad(PiecewiseConstantDecay, "boundaries", [2, math.inf]),
    bad(PiecewiseConstantDecay, "boundaries", [2]),
    bad(PiecewiseConstantDecay, "boundaries", 2, TypeError),
    bad(PiecewiseConstantDecay, "boundaries", "25", TypeError),
    bad(PiecewiseConstantDecay, "boundaries", {2: 0.1, 5: 0.2}, TypeError),
    bad(PiecewiseConstantDecay, "values", [0.1, 0.2]),
    bad(PiecewiseConstantDecay, "values", [0.1, 0.2, 0.3, 0.4]),
    bad(PiecewiseConstantDecay, "values", [0.1, math.nan, 0.3]),
    bad(PiecewiseConstantDecay, "values", [0.1, None, 0.3], TypeError),
]


@pytest.mark.parametrize(("cls", "argument", "value", "error"), BAD)
def test_bad_argument_is_refused_by_name_at_construction(cls, argument, value, error):
    with pytest.raises(error, match=argument):
        cls(**{**GOOD[cls], argument: value})


def test_message_of_a_bad_argument_says_what_was_given_and_what_is_expected():
    with pytest.raises(ValueError, match=r"^decay_steps must be greater than 0, got -3$"):
        ExponentialDecay(0.1, -3, 0.5)
    with pytest.raises(ValueError, match=r"^values\[1\] must be finite, got nan$"):
        PiecewiseConstantDecay([2], [0.1, math.nan])
    with pytest.raises(ValueError, match=r"^values must be one longer than boundaries, got 1 values for 1 "):
        PiecewiseConstantDecay([2], [0.1])


@pytest.mark.parametrize(
    "schedule",
    [
        ExponentialDecay(-0.1, 0.5, 2.0),
        PiecewiseConstantDecay((0,), (0, -1)),
        PiecewiseConstantDecay([], [0.1]),
        PolynomialDecay(0.01, 10, 0.1, 3),
        InverseTimeDecay(0, 10, -0.5, 1),
        CosineDecay(1, 10, -0.5, warmup_target=-1, warmup_steps=2.5),
        CosineDecayRestarts(0.1, 10, 0.5, -2, 1.5),
    ],
    ids=str,
)
def test_unusual_but_legal_arguments_are_accepted(schedule):
    assert math.isfinite(schedule(3))


def test_numpy_arguments_become_python_numbers():
    schedule = ExponentialDecay(np.float32(0.5), np.int64(10), np.array(0.25), np.True_)
    assert [type(value) for value in schedule.get_config().values()] == [float, int, float, bool, type(None)]
    assert schedule == ExponentialDecay(0.5, 10, 0.25, True)
    piecewise = PiecewiseConstantDecay(np.array([2, 5]), np.array([0.5, 0.25, 0.125], dtype=np.float32))
    assert piecewise == PiecewiseConstantDecay([2, 5], [0.5, 0.25, 0.125])


def test_schedule_does_not_follow_later_changes_of_its_arguments():
    values = [0.1, 0.2]
    schedule = PiecewiseConstantDecay([2], values)
    values[0] = 9.0
    schedule.get_config()["values"][1] = 9.0
    assert [schedule(0), schedule(3)] == [0.1, 0.2]


def test_schedule_is_constant():
    schedule = ExponentialDecay(0.1, 10, 0.5)
    with pytest.raises(AttributeError):
        schedule.decay_steps = 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_copies_and_pickles_are_equal(schedule):
    copies = [copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))]
    assert copies == [schedule] * 3
    assert {hash(each) for each in copies} == {hash(schedule)}


def test_schedules_differ_when_class_or_arguments_do():
    assert ExponentialDecay(0.1, 10, 0.5) != InverseTimeDecay(0.1, 10, 0.5)
    assert ExponentialDecay(0.1, 10, 0.5) != ExponentialDecay(0.1, 10, 0.5, staircase=True)


# ---------------------------------------------------------------------------------------------- base class


def test_subclass_without_its_methods_is_named_in_the_error():
    class Unfinished(LearningRateSchedule):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished must define __call__"):
        Unfinished()(0)
    with pytest.raises(NotImplementedError, match=r"Unfinished must define get_config"):
        Unfinished().get_config()
    with pytest.raises(NotImplementedError, match=r"Unfinished must define get_config"):
        serialize(Unfinished())


# ------------------------------------------------------------------------------------------- serialisation


@pytest.mark.parametrize("case", RECORDED)
def test_serialised_form_is_the_one_keras_writes(case):
    recorded = RECORDED[case]["config"]
    assert json.dumps(serialize(deserialize(recorded))) == json.dumps(recorded)


@given(schedule=any_schedule, legacy=st.booleans(), legacy_reader=st.booleans())
@settings(max_examples=80, deadline=None)
def test_any_schedule_survives_json_in_both_formats(schedule, legacy, legacy_reader):
    saved = json.loads(json.dumps(serialize(schedule, use_legacy_format=legacy), allow_nan=False))
    assert list(saved) == (
        ["class_name", "config"] if legacy else ["module", "class_name", "config", "registered_name"]
    )
    assert deserialize(saved, use_legacy_format=legacy_reader) == schedule
    assert type(schedule).from_config(schedule.get_config()) == schedule


@pytest.mark.parametrize("legacy", [False, True])
def test_custom_schedule_is_saved_with_what_it_holds_and_read_by_custom_objects(legacy):
    schedule = Custom(PiecewiseConstantDecay([2], [0.1, 0.2]), 0.5)
    saved = json.loads(json.dumps(serialize(schedule, legacy)))
    assert saved["config"]["inner"] == serialize(schedule.inner, legacy)
    assert deserialize(saved, {"Custom": Custom}, legacy)(3) == schedule(3)


def test_custom_schedule_has_no_module_and_is_registered_under_its_class():
    saved = serialize(Custom(CosineDecay(0.1, 10), 0.5))
    assert (saved["module"], saved["class_name"], saved["registered_name"]) == (None, "Custom", "Custom")


def test_custom_class_is_found_under_its_registered_name_too():
    saved = {**serialize(Custom(CosineDecay(0.1, 10), 0.5)), "registered_name": "mine>Custom"}
    assert isinstance(deserialize(saved, {"mine>Custom": Custom}), Custom)


def test_subclass_named_like_a_built_in_is_not_taken_for_it():
    mine = type("CosineDecay", (CosineDecay,), {})
    saved = serialize(mine(0.1, 10))
    assert type(deserialize(saved, {"CosineDecay": mine})) is mine
    with pytest.raises(TypeError, match="CosineDecay"):
        deserialize(saved)


@pytest.mark.parametrize("legacy", [False, True])
def test_unknown_class_is_named_with_the_way_out(legacy):
    saved = serialize(Custom(CosineDecay(0.1, 10), 0.5), legacy)
    with pytest.raises(TypeError, match=r"'Custom'.*custom_objects"):
        deserialize(saved, {"Other": Custom})


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("schedule", [*SCHEDULES, Custom(CosineDecay(0.1, 10), 0.5)], ids=repr)
def test_deserialize_leaves_its_argument_as_it_was(schedule, legacy):
    saved = serialize(schedule, legacy)
    before = copy.deepcopy(saved)
    assert isinstance(deserialize(saved, {"Custom": Custom}), type(schedule))
    assert saved == before


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        (None, TypeError, "config must be a mapping"),
        ("CosineDecay", TypeError, "config must be a mapping"),
        ({"config": {}}, ValueError, "class_name"),
        ({"class_name": "CosineDecay"}, ValueError, "'config'"),
        ({"class_name": None, "config": {}}, TypeError, "unknown schedule class None"),
        ({"class_name": "CosineDecay", "config": {"lr": 1}}, TypeError, "lr"),
        ({"class_name": "CosineDecay", "config": {"initial_learning_rate": 1}}, TypeError, "decay_steps"),
    ],
)
def test_malformed_config_is_refused(config, error, match):
    with pytest.raises(error, match=match):
        deserialize(config)


@pytest.mark.parametrize("schedule", [0.1, None, CosineDecay, math.sqrt], ids=repr)
def test_only_schedules_are_serialised(schedule):
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        serialize(schedule)
