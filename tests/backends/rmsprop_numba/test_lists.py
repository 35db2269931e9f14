"""Lists of NumPy arrays: steps that repeat the one before give what single steps give, and check what they do."""

import copy
import pickle

import ml_dtypes
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop.backends import PLANNED
from rmsprop.step.take import checked
from rmsprop.testing import assert_step, hyper_of, snapshot
from rmsprop_numba import headers
from rmsprop_numba.step import prepare, squared_norms

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.complex128]
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (100,), (4_096,), (4_097,), (129, 131), (40_000,)]

OPTIONS = st.fixed_dictionaries(
    {
        "momentum": st.sampled_from([0.0, 0.9]),
        "centered": st.booleans(),
        "epsilon_in_sqrt": st.sampled_from([None, False, True]),
        "complex_as_real": st.booleans(),
        "clipvalue": st.sampled_from([None, 0.5]),
        "clipnorm": st.sampled_from([None, 0.0, 1.0]),
    }
)
ARRAYS = st.lists(st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES)), min_size=1, max_size=6)


def drawn(rng, kinds):
    numbers = [(rng.standard_normal(shape), rng.standard_normal(shape), dtype) for dtype, shape in kinds]
    return [
        np.asarray(re + 1j * im if np.dtype(dtype).kind == "c" else re).astype(dtype) for re, im, dtype in numbers
    ]


def bits(arrays, optimizer):
    return [np.asarray(a).tobytes() for a in (*arrays, *optimizer.get_weights())]


def start(kinds=((np.float32, (3, 4)), (np.float64, (5,)), (np.float32, ())), **options):
    """Return an optimizer, variables and gradients after two steps, so that the third repeats the second."""
    rng = np.random.default_rng(0)
    variables, gradients = drawn(rng, kinds), drawn(rng, kinds)
    optimizer = RMSprop(0.01, **options)
    for _ in range(2):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return optimizer, variables, gradients


@settings(max_examples=30)
@given(kinds=ARRAYS, options=OPTIONS, seed=st.integers(0, 9))
def test_a_list_gives_the_bits_of_its_arrays_one_by_one(kinds, options, seed):
    rng = np.random.default_rng(seed)
    together = drawn(rng, kinds)
    alone = [v.copy() for v in together]
    optimizer, single = RMSprop(0.01, **options), [RMSprop(0.01, **options) for _ in kinds]
    for _ in range(3):
        gradients = drawn(rng, kinds)
        optimizer.apply_gradients(zip(gradients, together, strict=True))
        for one, g, v in zip(single, gradients, alone, strict=True):
            one.apply_gradients([(g, v)])
    for one, a, b in zip(single, together, alone, strict=True):
        assert a.tobytes() == b.tobytes()
        for slot in one.get_slot_names():
            expected = one.get_slot(b, slot).array
            assert optimizer.get_slot(a, slot).array.tobytes() == expected.tobytes()


@settings(max_examples=40)
@given(kinds=ARRAYS, options=OPTIONS, limit=st.sampled_from([None, 1.0]))
def test_replayed_steps_give_the_bits_of_steps_that_check_in_python(kinds, options, limit):
    def trajectory(is_known):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(headers, "is_known", lambda: is_known)
            rng = np.random.default_rng(1)
            variables, optimizer = drawn(rng, kinds), RMSprop(0.01, global_clipnorm=None, **options)
            optimizer.global_clipnorm = limit
            for _ in range(4):
                optimizer.apply_gradients(zip(drawn(rng, kinds), variables, strict=True))
            return bits(variables, optimizer)

    assert trajectory(True) == trajectory(False)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "centered": True, "global_clipnorm": 1.0}], ids=str)
def test_large_lists_give_the_same_bits_for_any_number_of_threads(options):
    def trajectory(threads):
        numba.set_num_threads(threads)
        rng = np.random.default_rng(2)
        kinds = [(dtype, shape) for dtype in (np.float32, np.float16) for shape in [(300_001,), (100,), (5, 7)]]
        variables, optimizer = drawn(rng, kinds), RMSprop(0.01, **options)
        for _ in range(3):
            optimizer.apply_gradients(zip(drawn(rng, kinds), variables, strict=True))
        return bits(variables, optimizer)

    most = numba.get_num_threads()
    try:
        assert trajectory(1) == trajectory(most)
    finally:
        numba.set_num_threads(most)


@pytest.mark.skipif(not headers.is_known(), reason="objects are laid out in another way")
@pytest.mark.parametrize("wrap", [np.asarray, Variable.around])
def test_a_step_that_repeats_the_one_before_is_replayed(monkeypatch, wrap):
    optimizer, variables = RMSprop(), [wrap(np.ones(shape, np.float32)) for shape in [(3,), (), (2, 2)]]
    for _ in range(2):
        optimizer.apply_gradients([(np.ones(v.shape, np.float32), v) for v in variables])
    monkeypatch.setattr("rmsprop.step.gradients.pairs", lambda given: pytest.fail("checked in Python"))
    optimizer.apply_gradients([(np.ones(v.shape, np.float32), v) for v in variables])
    assert int(optimizer.iterations) == 3


def test_a_gradient_buffer_may_move_in_memory():
    optimizer, (v, *_), (g, *_) = start([(np.float32, (1_000,))])
    twin, w = copy.deepcopy((optimizer, v))
    numbers = g.copy()
    g.resize((1_000_000,), refcheck=False)
    g.resize((1_000,), refcheck=False)
    g[:] = numbers
    optimizer.apply_gradients([(g, v)])
    twin.apply_gradients([(numbers, w)])
    assert bits([v], optimizer) == bits([w], twin)


def in_variable(optimizer, v, w):
    return w


def in_part_of_a_variable(optimizer, v, w):
    return np.frombuffer(memoryview(w).cast("B"), w.dtype)


def in_slot(optimizer, v, w):
    return optimizer.get_slot(w, "rms").array


@pytest.mark.parametrize("place", [in_variable, in_part_of_a_variable, in_slot])
def test_a_gradient_in_memory_that_is_updated_counts_as_it_was_before_the_step(place):
    def third_step(taken):
        optimizer, (w, v), gradients = start([(np.float64, (9,))] * 2)
        optimizer.apply_gradients([(gradients[0], w), (taken(place(optimizer, v, w)), v)])
        return bits([w, v], optimizer)

    assert third_step(lambda g: g) == third_step(np.copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.5), ("rho", 0.5), ("momentum", 0.9), ("epsilon", 0.1), ("centered", True),
        ("clipvalue", 0.1), ("clipnorm", 0.1), ("global_clipnorm", 0.1), ("decay", 0.5), ("epsilon_in_sqrt", True),
        ("learning_rate", lambda: 0.25), ("rho", np.array(0.5)),
    ],
)  # fmt: skip
def test_a_setting_changed_between_steps_takes_effect_in_the_next(name, value):
    optimizer, variables, gradients = start()
    twin, copies = copy.deepcopy((optimizer, variables))  # has no plan yet
    unchanged, others = copy.deepcopy((optimizer, variables))
    for one, arrays in ((optimizer, variables), (twin, copies)):
        setattr(one, name, value)
        one.apply_gradients(zip(gradients, arrays, strict=True))
    unchanged.apply_gradients(zip(gradients, others, strict=True))
    assert bits(variables, optimizer) == bits(copies, twin) != bits(others, unchanged)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_centering_that_is_turned_off_after_good_steps_is_so_in_the_next(momentum):
    optimizer, variables, gradients = start(centered=True, momentum=momentum)
    twin, copies = copy.deepcopy((optimizer, variables))  # has no plan yet
    for one, arrays in ((optimizer, variables), (twin, copies)):
        one.centered = False
        one.apply_gradients(zip(gradients, arrays, strict=True))
    assert bits(variables, optimizer) == bits(copies, twin)


def test_an_array_as_setting_is_read_in_each_step():
    rho = np.array(0.9)
    optimizer, variables, gradients = start(rho=rho)
    twin, copies = copy.deepcopy((optimizer, variables))
    rho[()] = 0.5
    twin.rho = 0.5
    for one, arrays in ((optimizer, variables), (twin, copies)):
        one.apply_gradients(zip(gradients, arrays, strict=True))
    assert bits(variables, optimizer) == bits(copies, twin)


BAD_LISTS = {
    "shape": lambda g, v: [(g[0].T, v[0]), *zip(g[1:], v[1:], strict=True)],
    "last axis": lambda g, v: [(np.ones((3, 5), np.float32), v[0]), *zip(g[1:], v[1:], strict=True)],
    "first axis": lambda g, v: [(np.ones((2, 4), np.float32), v[0]), *zip(g[1:], v[1:], strict=True)],
    "more axes": lambda g, v: [(g[0][None], v[0]), *zip(g[1:], v[1:], strict=True)],
    "integers": lambda g, v: [(g[0], v[0]), (np.ones(5, np.int64), v[1])],
    "no array": lambda g, v: [(g[0], v[0]), ("x", v[1])],
    "complex": lambda g, v: [(g[0].astype(np.complex64), v[0])],
    "masked": lambda g, v: [(np.ma.array(g[0]), v[0])],
    "no pair": lambda g, v: [(g[0], v[0]), g[1]],
    "three": lambda g, v: [(g[0], v[0]), (g[1], v[1], v[1])],
    "twice": lambda g, v: [(g[0], v[0]), (g[1], v[1]), (g[0], v[0])],
    "overlapping": lambda g, v: [(g[0], v[0]), (g[1], v[1]), (g[1][:2], v[1][:2])],
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_a_bad_list_after_good_steps_is_refused_and_changes_nothing(case):
    optimizer, variables, gradients = start()
    given = BAD_LISTS[case](gradients, variables)
    given += zip(gradients[len(given) :], variables[len(given) :], strict=True)  # or else it is no step to replay
    before = bits(variables, optimizer)
    with pytest.raises((TypeError, ValueError)):
        optimizer.apply_gradients(given)
    assert bits(variables, optimizer) == before


def read_only(v):
    v.flags.writeable = False


def of_another_shape(v):
    v.resize((4, 3), refcheck=False)


@pytest.mark.parametrize("spoil", [read_only, of_another_shape])
def test_a_variable_spoilt_after_good_steps_is_refused_and_nothing_changes(spoil):
    optimizer, variables, gradients = start()
    before = bits(variables, optimizer)
    spoil(variables[0])
    with pytest.raises(ValueError, match="Variable 0"):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    assert bits(variables, optimizer) == before


def test_a_variable_that_gets_a_constraint_after_good_steps_is_noticed():
    optimizer, v, g = RMSprop(0.1), Variable([1.0, 2.0]), np.ones(2, np.float32)
    for _ in range(2):
        optimizer.apply_gradients([(g, v)])
    v.constraint = lambda array: array * 0
    optimizer.apply_gradients([(g, v)])
    assert not v.array.any()
    v.constraint = None
    optimizer.apply_gradients([(g, v)])
    assert v.array.all()
    assert int(optimizer.iterations) == 4


def test_a_callable_that_raises_after_good_steps_changes_nothing():
    rates = iter([0.1, 0.1, 0.1])
    optimizer, variables, gradients = start(momentum=lambda: next(rates))
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    before = bits(variables, optimizer)
    with pytest.raises(StopIteration):
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    assert bits(variables, optimizer) == before


def test_a_callable_that_moves_a_gradient_in_memory_does_no_harm():
    optimizer, (v,), (g,) = start([(np.float32, (1_000,))])
    optimizer.learning_rate = lambda: g.resize((2_000_000,), refcheck=False) or 0.1
    before = bits([v], optimizer)
    with pytest.raises(ValueError, match="shape"):
        optimizer.apply_gradients([(g, v)])
    assert bits([v], optimizer) == before


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"]
)
def test_copies_have_plans_of_their_own(copied):
    optimizer, variables, gradients = start(momentum=0.9)
    twin, copies = copied((optimizer, variables))
    assert not twin._state.parameters.plans
    for one, arrays in ((optimizer, variables), (twin, copies)):
        for _ in range(2):
            one.apply_gradients(zip(gradients, arrays, strict=True))
    assert bits(variables, optimizer) == bits(copies, twin)
    assert all(not np.shares_memory(a, b) for a, b in zip(variables, copies, strict=True))


@pytest.mark.parametrize(
    "kinds", [[(np.float32, (3, 4)), (np.float64, (5,)), (np.float32, ())], [("f", (3,))] * 3]
)
def test_lists_may_change_from_step_to_step(kinds):
    optimizer, variables, gradients = start(kinds)
    twin, copies = RMSprop(0.01), drawn(np.random.default_rng(0), [(v.dtype, v.shape) for v in variables])
    for _ in range(2):
        for g, v in zip(gradients, copies, strict=True):
            twin.apply_gradients([(g, v)])
    orders = [(0, 1, 2), (0, 2, 1), (2, 1, 0), (0, 2), (0, 1), (0,), (0, 1, 2), (1, 0)]
    for order in orders:
        optimizer.apply_gradients([(gradients[i], variables[i]) for i in order])
        for i in order:
            twin.apply_gradients([(gradients[i], copies[i])])
    assert [v.tobytes() for v in variables] == [v.tobytes() for v in copies]


def test_lists_in_ever_another_order_fill_no_memory_and_the_latest_is_replayed(monkeypatch):
    variables = [np.ones(2) for _ in range(100)]
    gradient, optimizer, plans = np.ones(2), RMSprop(0.01), []
    for first in range(100):
        given = [(gradient, v) for v in variables[first:] + variables[:first]]
        optimizer.apply_gradients(given)
        plans = [len(plan) for plan in optimizer._state.parameters.plans.values()]
        assert sum(plans) <= PLANNED
    assert len(plans) > 1
    assert all(v.tobytes() == variables[0].tobytes() for v in variables)
    if headers.is_known():
        monkeypatch.setattr("rmsprop.step.gradients.pairs", lambda given: pytest.fail("checked in Python"))
        optimizer.apply_gradients(given)


def test_sparse_and_strided_gradients_may_join_a_list_of_dense_ones():
    rng = np.random.default_rng(4)
    together = [rng.standard_normal((6, 4)) for _ in range(4)]
    alone = [v.copy() for v in together]
    optimizer, single = RMSprop(0.01), [RMSprop(0.01) for _ in together]
    for step in range(4):
        g = rng.standard_normal((4, 6, 4))
        sparse = IndexedSlices(g[1, :3], np.array([4, 1, 4]))
        gradients = [g[0], sparse if step % 2 else g[1], np.asfortranarray(g[2]), g[3]]
        optimizer.apply_gradients(zip(gradients, together, strict=True))
        for one, gradient, v in zip(single, gradients, alone, strict=True):
            one.apply_gradients([(gradient, v)])
    assert [v.tobytes() for v in together] == [v.tobytes() for v in alone]


def square_sum(g):
    """Return the sum of squares as it is promised: 16 sums for each 4,096 elements, all added in their order."""
    total = 0.0
    for start in range(0, g.size, 4_096):
        squares = g[start : start + 4_096].astype(np.float64) ** 2
        lanes = [0.0] * 16
        for i, square in enumerate(squares):
            lanes[i % 16] += square
        block = 0.0
        for lane in lanes:
            block += lane
        total += block
    return total


def test_norms_are_summed_in_a_fixed_order():
    rng = np.random.default_rng(5)
    sizes = [0, 1, 15, 16, 127, 128, 129, 1_000, 4_096, 4_097, 40_000]
    gradients = [rng.standard_normal(n).astype(dtype) for n in sizes for dtype in (np.float32, np.float64)]
    norms = squared_norms([*gradients, gradients[-1][::-3]], hyper_of(RMSprop()))
    assert norms.tolist() == [square_sum(g) for g in [*gradients, gradients[-1][::-3]]]


def test_a_copy_of_a_gradient_in_the_memory_of_variables_lives_until_the_step_is_taken():
    optimizer, variables, _ = start([(np.float32, (1_000,))])
    parameters, gradients = checked(optimizer._settings, [(variables[0], variables[0])])
    before, hyper = snapshot(optimizer, variables[0]), hyper_of(optimizer)
    take = prepare(parameters, gradients, None, hyper)
    reused = [np.full(1_000, np.nan, np.float32) for _ in range(100)]
    take()
    assert len(reused) == 100
    assert_step(before, snapshot(optimizer, variables[0]), before.variable, hyper, "float32")
