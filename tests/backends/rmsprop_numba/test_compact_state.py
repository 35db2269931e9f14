"""Slots in bfloat16 and in 8 bits: their errors, their rounding, their state, and what they do to convergence."""

import copy
import functools
import json
import pickle
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import rmsprop
from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop_numba.compact import CompactSlot

STATE_DTYPES = ["bfloat16", "uint8"]
VARIANTS = [{}, {"momentum": 0.9}, {"momentum": 0.5, "centered": True, "clipvalue": 1.0, "global_clipnorm": 5.0}]
SHAPES = [(), (0,), (3, 0, 2), (1,), (511,), (513,), (7, 64), (5, 700), (3, 4, 5), (2, 3, 40)]
BOUNDS = {
    ("bfloat16", False): (2.0**-8, 0.0),
    ("uint8", False): (1 / 16, 2.0**-33 / 0.9375),
    ("uint8", True): (1 / 16, 2.0**-17 / 0.9375),
}
BOUNDS["bfloat16", True] = BOUNDS["bfloat16", False]

each_state = pytest.mark.parametrize("state_dtype", STATE_DTYPES)
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def drawn(rng, shape, dtype=np.float32):
    return np.asarray(rng.standard_normal(shape) * np.exp(rng.standard_normal(shape)), dtype)


def trained(state_dtype, arrays, steps=3, start=0, optimizer=None, **settings):
    optimizer = optimizer or RMSprop(0.01, state_dtype=state_dtype, **settings)
    for step in range(start, start + steps):
        rng = np.random.default_rng(step)
        optimizer.apply_gradients([(drawn(rng, a.shape, a.dtype), a) for a in arrays])
    return optimizer


def bits(optimizer, arrays):
    return [np.ascontiguousarray(a).tobytes() for a in (*arrays, *optimizer.get_weights())]


# What is stored


@each_state
@pytest.mark.parametrize("is_signed", [False, True])
@given(data=st.data())
def test_numbers_are_stored_with_the_documented_error_and_decoded_ones_without(state_dtype, is_signed, data):
    size = st.floats(2.0**-60, 2.0**60, width=32)
    elements = (
        st.one_of(st.just(0.0), size, size.map(lambda x: -x)) if is_signed else st.one_of(st.just(0.0), size)
    )
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    numbers = data.draw(st_numpy.arrays(dtype, st.integers(0, 40), elements=elements))
    slot = CompactSlot(numbers.shape, dtype, state_dtype, is_signed, "slot")
    slot.assign(numbers)
    stored = slot.numpy()
    relative, of_largest = BOUNDS[state_dtype, is_signed]
    allowed = relative * np.abs(numbers) + of_largest * np.max(np.abs(numbers), initial=0)
    assert (np.abs(stored - numbers) <= 1.0001 * allowed).all()
    slot.assign(stored)
    assert slot.numpy().tobytes() == stored.tobytes()


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("largest", np.linspace(1, 2, 17))
def test_the_smallest_numbers_beside_any_largest_have_the_documented_error(is_signed, largest):
    relative, of_largest = BOUNDS["uint8", is_signed]
    numbers = np.array([largest, *largest * of_largest * np.linspace(0, 8, 200)], np.float32)
    slot = CompactSlot(numbers.shape, np.float32, "uint8", is_signed, "slot").assign(numbers)
    allowed = relative * np.abs(numbers) + of_largest * largest
    assert (np.abs(slot.numpy() - numbers) <= 1.0001 * allowed).all()


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("largest", [1.2e-38, 1e-30, 1.0, 3.2e38])
def test_8_bits_serve_all_normal_numbers_of_float32(is_signed, largest):
    numbers = np.array([largest, largest / 2, 0], np.float32)
    slot = CompactSlot((3,), np.float32, "uint8", is_signed, "slot")
    slot.assign(numbers)
    stored = slot.numpy()
    np.testing.assert_allclose(stored, numbers, rtol=1 / 16, atol=2e-45)
    assert slot.assign(stored).numpy().tobytes() == stored.tobytes()


@each_state
def test_state_takes_a_half_or_a_quarter_of_the_memory(state_dtype):
    slot = RMSprop(state_dtype=state_dtype).add_slot(np.zeros(100_000, np.float32), "rms")
    assert slot.codes.nbytes + slot.scales.nbytes <= {"bfloat16": 200_000, "uint8": 101_600}[state_dtype]


@each_state
def test_what_is_not_finite_spoils_no_other_element(state_dtype):
    clean, spoilt = np.zeros(100, np.float32), np.zeros(100, np.float32)
    optimizers = (
        RMSprop(0.1, state_dtype=state_dtype, momentum=0.5),
        RMSprop(0.1, state_dtype=state_dtype, momentum=0.5),
    )
    gradient = np.linspace(1, 2, 100, dtype=np.float32)
    bad = gradient.copy()
    bad[[3, 4, 5]] = np.nan, np.inf, 1e30
    for g in (gradient, bad, gradient):
        optimizers[1].apply_gradients([(g, spoilt)])
        optimizers[0].apply_gradients([(np.where(np.isfinite(g) & (g < 1e30), g, np.float32(0)), clean)])
    others = np.r_[0:3, 6:100]
    assert spoilt[others].tobytes() == clean[others].tobytes()
    assert np.isnan(spoilt[3:5]).all()
    for name, is_lost in (("rms", 3), ("momentum", 2)):
        assert not np.isfinite(optimizers[1].get_slot(spoilt, name).numpy()[3 : 3 + is_lost]).any()


# Rounding has no bias


@each_state
@pytest.mark.parametrize("rho", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("kind", ["normal", "constant", "rare"])
def test_the_average_is_followed_within_2_percent_of_its_mean(state_dtype, rho, kind):
    rng = np.random.default_rng(0)
    size = np.exp(rng.standard_normal(16_384)).astype(np.float32)
    full, small = RMSprop(rho=rho), RMSprop(rho=rho, state_dtype=state_dtype)
    a, b = np.zeros_like(size), np.zeros_like(size)
    for _ in range(int(3 / (1 - rho))):
        factor = {"normal": rng.standard_normal, "constant": np.ones, "rare": lambda n: rng.random(n) < 0.05}[kind]
        gradient = size * np.asarray(factor(size.size), np.float32)
        full.apply_gradients([(gradient, a)])
        small.apply_gradients([(gradient, b)])
    exact, kept = full.get_slot(a, "rms").numpy(), small.get_slot(b, "rms").numpy()
    has_any = exact > 0
    assert np.mean(kept[has_any] / exact[has_any]) == pytest.approx(1, abs=0.02)


def test_to_round_to_the_nearest_bfloat16_would_stop_the_average_short():
    average, rho = np.float32(0), np.float32(0.999)
    for _ in range(3000):
        slot = CompactSlot((1,), np.float32, "bfloat16", False, "slot").assign([rho * average + (1 - rho)])
        average = slot.numpy()[0]
    assert average < 0.5  # of 0.95, which the test above asks for


@pytest.mark.parametrize(("state_dtype", "share"), [("bfloat16", 1 / 65), ("uint8", 1 / 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centered_variance_is_no_smaller_than_what_rounding_may_hide(state_dtype, share, dtype):
    gradient = np.exp(np.random.default_rng(0).standard_normal(1000)).astype(dtype)
    v, optimizer = np.zeros_like(gradient), RMSprop(1.0, centered=True, state_dtype=state_dtype)
    for _ in range(200):
        before = v.copy()
        optimizer.apply_gradients([(gradient, v)])
        rms = optimizer.get_slot(v, "rms").numpy()
        variance = (gradient / (before - v)) ** 2  # as it was computed, with `rms` before it was rounded
        assert (variance >= 0.9 * share * 0.85 * rms).all()


# Reproducible


@each_state
@each_variant
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_list_gives_the_same_bits_as_its_arrays_one_by_one(state_dtype, variant, dtype):
    settings = {k: v for k, v in variant.items() if k != "global_clipnorm"}
    together = [drawn(np.random.default_rng(9), shape, dtype) for shape in SHAPES]
    alone = [a.copy() for a in together]
    optimizer, singles = (
        RMSprop(state_dtype=state_dtype, **settings),
        [RMSprop(state_dtype=state_dtype, **settings) for _ in alone],
    )
    for step in range(3):
        gradients = [drawn(np.random.default_rng(step), shape, dtype) for shape in SHAPES]
        optimizer.apply_gradients(zip(gradients, together, strict=True))
        for single, g, a in zip(singles, gradients, alone, strict=True):
            single.apply_gradients([(g, a)])
    for a, b in zip(together, alone, strict=True):
        assert a.tobytes() == b.tobytes()
        assert np.isfinite(a).all()


def with_gaps(a):
    view = np.zeros((*a.shape, 3), a.dtype)[..., 1]
    view[...] = a
    return view


def unaligned(a):
    view = np.ndarray(a.shape, a.dtype, np.zeros(a.nbytes + 1, np.uint8)[1:])
    view[...] = a
    return view


@each_state
@each_variant
@pytest.mark.parametrize("layout", [with_gaps, np.asfortranarray, unaligned, lambda a: a[::-1].copy()[::-1]])
def test_any_layout_gives_the_same_bits_and_loses_no_update(state_dtype, variant, layout):
    results = []
    for order in (np.copy, layout):
        rng = np.random.default_rng(3)
        v = order(drawn(rng, (6, 5, 40)))
        optimizer = RMSprop(0.01, state_dtype=state_dtype, **variant)
        for _ in range(3):
            optimizer.apply_gradients([(order(drawn(rng, v.shape)), v)])
            rows = IndexedSlices(drawn(rng, (4, 5, 40)), np.array([1, 5, 1, 0]))
            optimizer.apply_gradients([(rows, v)])
        results.append(bits(optimizer, [v]))
    assert results[0] == results[1]


@pytest.fixture
def threads():
    """Return the function that sets how many threads there are."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@each_state
@each_variant
def test_any_number_of_threads_gives_the_same_bits(threads, state_dtype, variant):
    results = []
    for count in range(1, numba.get_num_threads() + 1):
        threads(count)
        rng = np.random.default_rng(0)
        arrays = [drawn(rng, shape) for shape in [(300_001,), (700, 500), (3, 4)]]
        optimizer = RMSprop(0.01, state_dtype=state_dtype, **variant)
        for _ in range(3):
            gradients = [drawn(rng, a.shape) for a in arrays]
            gradients[1] = IndexedSlices(gradients[1], rng.integers(0, 700, 700))
            optimizer.apply_gradients(zip(gradients, arrays, strict=True))
        results.append(bits(optimizer, arrays))
    assert all(result == results[0] for result in results)


@each_state
@each_variant
def test_state_that_is_saved_and_restored_goes_on_with_the_same_bits(state_dtype, variant):
    arrays = [drawn(np.random.default_rng(9), shape) for shape in SHAPES]
    optimizer = trained(state_dtype, arrays, **variant)
    copies = [a.copy() for a in arrays]
    restored = RMSprop.from_config(json.loads(json.dumps(optimizer.get_config())))
    restored.build(copies)
    restored.set_weights(optimizer.get_weights())
    pickled, pickled_arrays = pickle.loads(pickle.dumps((optimizer, arrays)))
    twin, twin_arrays = copy.deepcopy((optimizer, arrays))
    expected = bits(trained(None, arrays, start=3, optimizer=optimizer), arrays)
    for other, others in ((restored, copies), (pickled, pickled_arrays), (twin, twin_arrays)):
        assert bits(trained(None, others, start=3, optimizer=other), others) == expected


@each_state
def test_weights_are_full_arrays_that_optimizers_of_another_state_dtype_take(state_dtype):
    v = drawn(np.random.default_rng(9), (5, 100))
    full = trained(None, [v], momentum=0.5)
    small = RMSprop(momentum=0.5, state_dtype=state_dtype)
    small.build([v])
    small.set_weights(full.get_weights())
    for a, b in zip(small.get_weights(), full.get_weights(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1 / 16, atol=2.0**-19 * np.abs(b).max())
    full.set_weights(small.get_weights())
    assert [a.tobytes() for a in full.get_weights()] == [a.tobytes() for a in small.get_weights()]


def test_a_constraint_that_fails_undoes_the_step():
    v = Variable(np.ones(5, np.float32))
    optimizer = RMSprop(state_dtype="uint8")
    optimizer.apply_gradients([(np.arange(5.0, dtype=np.float32), v)])
    before = bits(optimizer, [v.array])
    v.constraint = lambda w: 1 / 0
    with pytest.raises(ZeroDivisionError):
        optimizer.apply_gradients([(np.ones(5, np.float32), v)])
    assert bits(optimizer, [v.array]) == before


def test_a_gradient_in_the_memory_of_a_variable_counts_as_it_was_before_the_step():
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    a, b = x.copy(), y.copy()
    RMSprop(0.1, state_dtype="uint8").apply_gradients([(y, x), (x, y)])
    RMSprop(0.1, state_dtype="uint8").apply_gradients([(b.copy(), a), (a.copy(), b)])
    assert (x.tobytes(), y.tobytes()) == (a.tobytes(), b.tobytes())


# Sparse gradients


@each_state
@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 64), (50, 8, 100)])
@each_variant
def test_rows_that_are_not_listed_keep_their_bits(state_dtype, shape, variant):
    if state_dtype == "uint8" and np.prod(shape[1:]) < 64:
        pytest.skip("is refused")
    v = drawn(np.random.default_rng(9), shape)
    optimizer = trained(state_dtype, [v], **variant)
    before = [v.copy(), *optimizer.get_weights()[1:]]
    rows = IndexedSlices(drawn(np.random.default_rng(8), (3, *shape[1:])), np.array([7, 2, 7]))
    optimizer.apply_gradients([(rows, v)])
    untouched = np.delete(np.arange(50), [7, 2])
    for a, b in zip([v, *optimizer.get_weights()[1:]], before, strict=True):
        assert a[untouched].tobytes() == b[untouched].tobytes()
        assert (a[[2, 7]] != b[[2, 7]]).any()


@each_state
def test_sparse_rows_are_updated_as_by_a_dense_gradient(state_dtype):
    dense, sparse = (drawn(np.random.default_rng(9), (20, 70)) for _ in range(2))
    a, b = trained(state_dtype, [dense]), trained(state_dtype, [sparse])
    gradient = np.zeros((20, 70), np.float32)
    gradient[[3, 5]] = drawn(np.random.default_rng(8), (2, 70))
    a.apply_gradients([(gradient, dense)])
    b.apply_gradients([(IndexedSlices(gradient[[5, 3]], np.array([5, 3], np.uint8)), sparse)])
    assert dense[[3, 5]].tobytes() == sparse[[3, 5]].tobytes()


@each_state
@pytest.mark.parametrize("shape", [(20,), (20, 70)])
def test_without_lazy_all_averages_decay(state_dtype, shape):
    dense, sparse = (drawn(np.random.default_rng(9), shape) for _ in range(2))
    a, b = trained(state_dtype, [dense]), trained(state_dtype, [sparse], lazy=False)
    gradient = np.zeros(shape, np.float32)
    gradient[[3, 5]] = drawn(np.random.default_rng(8), (2, *shape[1:]))
    a.apply_gradients([(gradient, dense)])
    b.apply_gradients([(IndexedSlices(gradient[[5, 3]], np.array([5, 3])), sparse)])
    assert bits(a, [dense]) == bits(b, [sparse])


@each_state
def test_no_rows_at_all_change_nothing(state_dtype):
    v = drawn(np.random.default_rng(9), (20, 70))
    optimizer = trained(state_dtype, [v])
    before = bits(optimizer, [v])[0], optimizer.get_weights()[1].tobytes()
    optimizer.apply_gradients([(IndexedSlices(np.zeros((0, 70), np.float32), np.array([], int)), v)])
    assert (bits(optimizer, [v])[0], optimizer.get_weights()[1].tobytes()) == before


def test_short_rows_with_a_shared_scale_are_refused_and_nothing_changes():
    v, w = np.ones((9, 8), np.float32), np.ones(4, np.float32)
    optimizer = RMSprop(state_dtype="uint8")
    optimizer.build([v, w])
    before = bits(optimizer, [v, w])
    with pytest.raises(TypeError, match=r"float32, shape \(9, 8\).*bfloat16"):
        optimizer.apply_gradients([(w, w), (IndexedSlices(np.ones((1, 8), np.float32), np.array([3])), v)])
    assert bits(optimizer, [v, w]) == before


# The option


@pytest.mark.parametrize("bad", ["int8", "float32", 8, np.uint8, b"uint8", ["uint8"]])
def test_another_state_dtype_is_an_error_that_names_those_there_are(bad):
    with pytest.raises(ValueError, match="None, 'bfloat16' or 'uint8'; given"):
        RMSprop(state_dtype=bad)


@each_state
def test_state_dtype_is_in_the_configuration_and_fixed_by_the_first_slot(state_dtype):
    optimizer = RMSprop(state_dtype=state_dtype)
    assert RMSprop.from_config(optimizer.get_config()).state_dtype == state_dtype
    assert "state_dtype" not in RMSprop().get_config()
    optimizer.build([np.ones(2)])
    optimizer.state_dtype = state_dtype
    with pytest.raises(ValueError, match="can't be changed"):
        optimizer.state_dtype = None
    assert optimizer.state_dtype == state_dtype


@each_state
def test_other_libraries_are_refused_before_anything_changes(state_dtype):
    xp = pytest.importorskip("array_api_strict")
    v = Variable(xp.ones(3))
    optimizer = RMSprop(state_dtype=state_dtype)
    with pytest.raises(TypeError, match="array of NumPy or CuPy; given one of array_api_strict"):
        optimizer.build([v])
    assert len(optimizer.weights) == 1


@each_state
def test_slots_are_read_in_full_and_can_be_set_only_by_assign(state_dtype):
    v = np.ones((2, 3), np.float32)
    optimizer = RMSprop(state_dtype=state_dtype)
    optimizer.build([v])
    slot = optimizer.get_slot(v, "rms")
    assert (slot.shape, slot.dtype, slot.ndim) == ((2, 3), np.float32, 2)
    slot.assign(np.full((2, 3), 0.5))
    np.testing.assert_array_equal(slot.numpy(), np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="read-only"):
        slot.array[0] = 1
    with pytest.raises(ValueError, match="shape"):
        slot.assign(np.ones(3))
    assert optimizer.add_slot(v, "own", "ones").array.flags.writeable


def test_what_is_not_asked_for_is_not_imported():
    code = (
        "import sys, numpy, rmsprop; v = numpy.ones(3); rmsprop.RMSprop().apply_gradients([(v, v)]);"
        "sys.exit(any('compact' in name or 'block_kernels' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Convergence


@each_state
def test_ptychography_ends_near_the_loss_with_full_state(state_dtype, monkeypatch, tmp_path, example):
    losses = []
    for dtype in (None, state_dtype):
        monkeypatch.setattr(rmsprop, "RMSprop", functools.partial(RMSprop, state_dtype=dtype))
        losses.append(example("ptychography").main(["--small", "--output", str(tmp_path)]).loss)
    assert losses[1] == pytest.approx(losses[0], rel=0.021)


@each_state
def test_digits_are_classified_as_well_as_with_full_state(state_dtype, monkeypatch, tmp_path, example):
    accuracies = []
    for dtype in (None, state_dtype):
        monkeypatch.setattr(rmsprop, "RMSprop", functools.partial(RMSprop, state_dtype=dtype))
        accuracies.append(example("digits").main(["--output", str(tmp_path)]))
    assert accuracies[1] > accuracies[0] - 0.01
