"""Windows of NumPy arrays: as the flat rows of the same elements, in any layout, by any number of threads."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from rmsprop import RMSprop, Windows
from rmsprop_numba import threads, window_kernels
from rmsprop_numba.windows import Axes, _pieces

# Each takes seconds to compile.
KINDS = [
    ("float16", {}),
    (ml_dtypes.bfloat16, {"momentum": 0.9, "momentum_includes_lr": False}),
    ("float32", {"clipvalue": 0.3, "clipnorm": 1.0}),
    ("float64", {"lazy": False, "centered": True, "weight_decay": 0.1, "decoupled": True, "use_ema": True}),
    ("complex64", {"momentum": 0.9, "nesterov": True, "centered": True, "weight_decay": 0.1}),
    ("complex128", {"complex_as_real": True, "clipvalue": 0.3, "global_clipnorm": 1.0}),
]
LAYOUTS = {
    "in C order": lambda x: x.copy(order="C"),
    "in Fortran order": lambda x: x.copy(order="F"),
    "with the first axis last in memory": lambda x: np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0),
    "as a part of a larger array": lambda x: np.pad(x, 2)[(slice(2, -2),) * x.ndim],
    "backwards in the first axis": lambda x: x[::-1].copy()[::-1],
    "backwards in the last axis": lambda x: x[..., ::-1].copy()[..., ::-1],
    "with gaps between elements": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "not aligned": lambda x: shifted(x),
}


def shifted(x):
    """Return a copy that begins one byte after where NumPy would have it begin."""
    copy = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def drawn(rng, dtype, shape):
    """Return random numbers, among them many zeros of either sign."""
    numbers = rng.choice([-1.5, -0.0, 0.0, 0.7], shape) * rng.choice([1.0, 0.123], shape)
    return (numbers * (1j - 1) if np.dtype(dtype).kind == "c" else numbers).astype(dtype)


@st.composite
def cases(draw):
    """Return a variable, windows that may overlap, and settings."""
    dtype, options = draw(st.sampled_from(KINDS))
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    patch = [draw(st.integers(1, n)) for n in shape]
    n = draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    starts = rng.integers(0, np.subtract(shape, patch) + 1, (n, len(shape)))
    return drawn(rng, dtype, shape), Windows(drawn(rng, dtype, (n, *patch)), starts), options


def stepped(x, gradient, options, steps=2):
    """Return an array after steps, and the slots."""
    opt = RMSprop(0.1, **options)
    for _ in range(steps):
        opt.apply_gradients([(gradient, x)])
    return [x, *opt.get_weights()[1:]]


def assert_same_bits(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.dtype == b.dtype
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@settings(max_examples=150)
@given(cases(), st.sampled_from(list(LAYOUTS)), st.sampled_from(["C", "F"]))
def test_windows_give_the_bits_of_the_flat_rows_of_the_same_elements_in_any_layout(case, layout, order):
    x, windows, options = case
    expected = stepped(x.reshape(-1).copy(), windows.indexed(x.shape), options)
    values = Windows(windows.values.copy(order), windows.starts)
    assert_same_bits(expected, stepped(LAYOUTS[layout](x), values, options))


@pytest.mark.parametrize(
    ("shape", "patch"), [((9_000,), (5_000,)), ((3, 4_200), (2, 2_049)), ((5, 2, 2_048), (2, 2, 2_048))], ids=str
)
def test_rows_that_are_longer_than_a_segment_and_windows_across_several(shape, patch):
    rng, n = np.random.default_rng(0), 7
    starts = rng.integers(0, np.subtract(shape, patch) + 1, (n, len(shape)))
    x, windows = drawn(rng, "float16", shape), Windows(drawn(rng, "float16", (n, *patch)), starts)
    expected = stepped(x.reshape(-1).copy(), windows.indexed(shape), {})
    assert_same_bits(expected, stepped(x.copy(), windows, {}))


@settings(max_examples=50)
@given(cases().filter(lambda case: case[2].get("lazy", True)), st.integers(0, 99))
def test_elements_outside_of_all_windows_keep_their_bits_and_those_of_their_slots(case, seed):
    x, windows, options = case
    x, is_covered, opt = x.copy(), np.zeros(x.shape, bool), RMSprop(0.1, **options)
    for start in windows.starts:
        is_covered[tuple(map(slice, start, start + windows.values.shape[1:]))] = True
    whole = drawn(np.random.default_rng(seed), x.dtype, (1, *x.shape))
    opt.apply_gradients([(Windows(whole, np.zeros((1, x.ndim), int)), x)])
    before = [x.copy(), *opt.get_weights()[1:]]
    opt.apply_gradients([(windows, x)])
    after = [x, *opt.get_weights()[1:]]
    assert_same_bits([a[~is_covered] for a in before], [a[~is_covered] for a in after])
    decays = (whole[0] != 0) & is_covered
    assert (before[1] != after[1])[decays].all()


@pytest.mark.parametrize(("dtype", "options"), [KINDS[0], KINDS[3], KINDS[4]], ids=str)
def test_windows_that_tile_a_variable_give_the_bits_of_the_dense_gradient(dtype, options):
    options = {name: value for name, value in options.items() if name != "lazy"}
    rng = np.random.default_rng(0)
    x, gradient = drawn(rng, dtype, (6, 8)), drawn(rng, dtype, (6, 8))
    values = sliding_window_view(gradient, (2, 4))[::2, ::4].reshape(6, 2, 4)
    starts = [(i, j) for i in range(0, 6, 2) for j in range(0, 8, 4)]
    assert_same_bits(stepped(x.copy(), gradient, options), stepped(x.copy(), Windows(values, starts), options))


@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_threads_makes_no_difference(monkeypatch, count):
    numba = pytest.importorskip("numba")
    rng, (dtype, options) = np.random.default_rng(0), KINDS[4]
    x, starts = drawn(rng, dtype, (40, 30)), rng.integers(0, 24, (50, 2))
    windows = Windows(drawn(rng, dtype, (50, 5, 6)), starts)
    expected = stepped(x.copy(), windows, options)
    monkeypatch.setattr(threads, "PARALLEL_FROM", 0)
    before = numba.get_num_threads()
    numba.set_num_threads(min(count, before))
    try:
        assert_same_bits(expected, stepped(x.copy(), windows, options))
    finally:
        numba.set_num_threads(before)


def test_a_sum_is_taken_in_the_order_of_the_windows():
    values, total = np.array([1e8, 1.0, -1e8, 1.0], np.float32), np.float32(0)
    for value in values:
        total += value
    x, opt = np.zeros((3, 3), np.float32), RMSprop(0.1)
    opt.apply_gradients([(Windows(values.reshape(4, 1, 1), [(2, 1)] * 4), x)])
    assert opt.get_slot(x, "rms").array[2, 1] == np.float32(0.1) * total**2 == np.float32(0.1)


def test_a_gradient_in_the_memory_of_its_variable_counts_as_it_was():
    x = np.arange(1.0, 31.0).reshape(5, 6)
    expected = stepped(x.copy(), Windows(x[None, :2, :3].copy(), [(1, 1)]), {}, steps=1)
    assert_same_bits(expected, stepped(x, Windows(x[None, :2, :3], [(1, 1)]), {}, steps=1))


def test_runs_that_cover_whole_rows_are_one():
    x = np.ones((6, 4, 3), np.float32)
    expected = stepped(x.reshape(6, 12).copy(), Windows(np.ones((1, 2, 12), "f"), [(1, 0)]), {})
    found = stepped(x.copy(), Windows(np.ones((1, 2, 4, 3), "f"), [(1, 0, 0)]), {})
    assert_same_bits([a.reshape(6, 12) for a in found], expected)


def test_work_follows_the_windows_and_not_the_variable():
    starts = np.array([[0], [10**12]])
    pieces = _pieces(Axes((2 * 10**12,), (window_kernels.SEGMENT,), starts), 1)
    assert len(pieces.listed) == len(pieces.ordered) <= 4


@pytest.mark.parametrize(
    ("order", "options"),
    [("C", {}), ("F", {}), ("C", {"momentum": 0.9, "centered": True, "lazy": False})],
    ids=str,
)
def test_slots_of_half_the_size_are_those_of_the_flat_variable(order, options):
    rng = np.random.default_rng(0)
    x, options = drawn(rng, "float32", (5, 6)), {**options, "state_dtype": "bfloat16", "weight_decay": 0.1}
    windows = Windows(drawn(rng, "float32", (4, 2, 3)), [(0, 0), (1, 1), (3, 3), (1, 2)])
    expected = stepped(x.reshape(-1).copy(), windows.indexed(x.shape), options)
    found = stepped(x.copy(order), windows, options)
    assert_same_bits([a.reshape(-1) for a in found], expected)


def test_blocks_of_bytes_can_not_be_updated_by_windows():
    x, opt = np.ones((5, 600), np.float32), RMSprop(state_dtype="uint8")
    with pytest.raises(TypeError, match="state_dtype='uint8'.*Expected a dense gradient.*Windows"):
        opt.apply_gradients([(Windows(np.ones((1, 2, 3)), [(0, 0)]), x)])
    assert (x == 1).all()
    assert opt.iterations == 0
