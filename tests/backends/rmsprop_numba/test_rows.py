"""Sparse gradients of NumPy tables: rows are put in order, summed where they are listed twice, and updated."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rmsprop import IndexedSlices, RMSprop
from rmsprop.arrays.rows import MANY
from rmsprop_numba import row_kernels, threads

INDEX_DTYPES = ("int8", "uint8", "int32", "int64", "uint64")


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=60)
    | st.lists(st.integers(0, 2**45), min_size=1, max_size=60)
    | st.integers(1, 60).map(lambda n: list(range(n)))
)
@example([1 << 22, 3, 1 << 21])  # which take three passes, by more bits than is a multiple of that
def test_rows_are_put_in_rising_order_and_positions_of_each_stay_in_theirs(numbers):
    indices = np.array(numbers, np.int64)
    buffers = np.empty((2, len(indices)), np.int64)
    which, low = row_kernels.by_row(indices, buffers)
    listed = buffers[which]
    order = np.argsort(indices, kind="stable")
    np.testing.assert_array_equal(listed >> low, indices[order])
    np.testing.assert_array_equal(listed & (1 << low) - 1, order)


def test_more_rows_than_can_be_told_apart_are_refused():
    with pytest.raises(OverflowError, match="too many"):
        row_kernels.by_row(np.array([2**62, 0, 1]), np.empty((2, 3), np.int64))


@st.composite
def steps(draw):
    """Return a table, sparse gradients, and settings."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(0, 70))
    indices = draw(st.lists(st.integers(0, height - 1), max_size=30))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from(["float16", "float32", "complex64"]))
    table = rng.standard_normal((height, width)).astype(dtype)
    values = rng.standard_normal((len(indices), width)).astype(dtype)
    kind = np.dtype(draw(st.sampled_from(INDEX_DTYPES)))
    options = draw(st.sampled_from([{}, {"momentum": 0.9, "centered": True}, {"clipvalue": 0.3, "clipnorm": 1.0}]))
    return table, IndexedSlices(values, np.array(indices, kind)), options


def stepped(table, gradient, options, steps=2):
    """Return a table after steps, and the slots."""
    table = table.copy(order="K")
    opt = RMSprop(0.1, **options)
    for _ in range(steps):
        opt.apply_gradients([(gradient, table)])
    return [table, *opt.get_weights()]


def assert_same_bits(one, two):
    for a, b in zip(one, two, strict=True):
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


@settings(max_examples=150)
@given(steps(), st.booleans())
def test_layout_and_threads_make_no_difference(step, lazy):
    table, gradient, options = step
    options = {**options, "lazy": lazy}
    expected = stepped(table, gradient, options)
    for other in (np.asfortranarray(table), table[::-1].copy()[::-1]):
        assert_same_bits(expected, stepped(other, gradient, options))
    spread = IndexedSlices(gradient.values[:, ::-1].copy()[:, ::-1], gradient.indices.repeat(2)[::2])
    assert_same_bits(expected, stepped(table, spread, options))
    before, threads.PARALLEL_FROM = threads.PARALLEL_FROM, 0
    try:
        assert_same_bits(expected, stepped(table, gradient, options))
    finally:
        threads.PARALLEL_FROM = before


@settings(max_examples=150)
@given(steps())
def test_rows_that_are_not_listed_keep_their_bits_and_the_others_change_as_if_alone(step):
    table, gradient, options = step
    if "clipnorm" in options:
        options = {"clipvalue": 0.3}
    after = stepped(table, gradient, options)
    for i, row in enumerate(table):
        positions = np.flatnonzero(gradient.indices == i)
        if not len(positions):
            assert after[0][i].tobytes() == row.tobytes()
            continue
        alone = IndexedSlices(gradient.values[positions], np.zeros(len(positions), int))
        expected = stepped(row[np.newaxis], alone, options)
        assert_same_bits([a[0] for a in expected[:1] + expected[2:]], [a[i] for a in after[:1] + after[2:]])


def test_a_sum_is_taken_in_the_order_of_the_listings():
    values = np.array([1e8, 1.0, -1e8, 1.0], np.float32)
    total = np.float32(0)
    for value in values:
        total += value
    table = np.zeros((3, 1), np.float32)
    opt = RMSprop(0.1)
    opt.apply_gradients([(IndexedSlices(values[:, np.newaxis], np.array([2, 2, 2, 2])), table)])
    assert opt.get_slot(table, "rms").array[2, 0] == np.float32(0.1) * total**2 == np.float32(0.1)


@pytest.mark.parametrize("count", [MANY, MANY + 1, 2 * MANY, 10_000])
def test_the_gradients_of_a_row_that_is_listed_often_are_added_in_blocks(count):
    values = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    parts = [in_order(values[start : start + MANY]) for start in range(0, count, MANY)]
    table, rows = np.zeros((4, 3), np.float32), np.full(count, 2)
    opt = RMSprop(0.1, momentum=0.9)
    opt.apply_gradients([(IndexedSlices(values, rows), table)])
    np.testing.assert_array_equal(
        opt.get_slot(table, "rms").array[2], np.float32(0.1) * in_order(np.array(parts)) ** 2
    )


def in_order(values):
    """Return the sum of rows, one after the other."""
    total = values[0].copy()
    for row in values[1:]:
        total += row
    return total


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_a_sum_of_negative_zeros_is_one(dtype):
    nothing = -np.zeros((2, 1), dtype)
    table = nothing.copy()
    RMSprop(0.1).apply_gradients([(IndexedSlices(nothing, np.array([0, 0])), table)])
    parts = table.view(table.real.dtype)
    assert not np.signbit(parts[0]).any()  # -0.0 less a step of -0.0; less one of 0.0 it would keep its sign
    assert np.signbit(parts[1]).all()


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
@pytest.mark.parametrize("bad", [-1, 5, 100])
def test_rows_out_of_range_change_nothing(dtype, bad):
    if bad < 0 and dtype.startswith("u"):
        pytest.skip("there is no such number")
    table = np.ones((5, 3))
    opt = RMSprop()
    gradient = IndexedSlices(np.ones((3, 3)), np.array([0, bad, 1], dtype))
    with pytest.raises(ValueError, match="indices must be >= 0 and < 5"):
        opt.apply_gradients([(gradient, table)])
    assert (table == 1).all()
    assert opt.iterations == 0


@pytest.mark.parametrize("order", ["C", "F"])
def test_averages_decay_whatever_numpy_is_told_of_errors(order):
    small, table = np.float32(1.2e-38), np.ones((3, 2), np.float32, order)
    opt = RMSprop(0.1, lazy=False, centered=True)
    opt.build([table])
    opt.set_weights([np.array(0), *[np.full((3, 2), small)] * 2])
    with np.errstate(all="raise"):  # of numbers that become too small, for instance
        opt.apply_gradients([(IndexedSlices(np.ones((1, 2), np.float32), np.array([1])), table)])
    assert opt.iterations == 1
    assert (opt.get_slot(table, "rms").numpy()[0] == small * np.float32(0.9)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.complex64])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)])
def test_averages_of_a_single_element_decay(shape, dtype):
    table = np.ones(shape, dtype)
    opt = RMSprop(0.1, rho=0.5, lazy=False, centered=True)
    opt.build([table])
    opt.set_weights([np.array(0), *[np.ones(shape)] * 2])
    nothing = IndexedSlices(np.zeros((0, *shape[1:]), dtype), np.zeros(0, np.int64))
    opt.apply_gradients([(nothing, table)])
    assert opt.get_slot(table, "rms").numpy() == opt.get_slot(table, "mg").numpy() == 0.5


def test_the_kernels_are_compiled_once_for_all_shapes_layouts_and_counts():
    def compiled():
        kernels = row_kernels.by_row, row_kernels.sweep_rows, row_kernels.sweep_rows_parallel
        return [len(kernel.signatures) for kernel in kernels]

    def take(shape, count, kind, order="C"):
        table = np.ones(shape, np.float32, order)
        values = np.ones((count, *shape[1:]), np.float32)
        RMSprop().apply_gradients([(IndexedSlices(values, np.arange(count, dtype=kind)), table)])

    take((30_000, 10), 30_000, np.int64)
    take((4, 3), 2, np.int64)
    before = compiled()
    for shape, count, kind in [((5,), 1, "i4"), ((7, 2, 3), 3, "u1"), ((9, 1), 4, "i8"), ((9, 0), 4, "u8")]:
        take(shape, count, kind)
        take(shape, count, kind, "F")
    assert compiled() == before
