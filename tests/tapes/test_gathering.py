"""Rows that a loss reads by arrays of integers: sparse gradients, as Keras has them for gather."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

from rmsprop import GradientTape, IndexedSlices, RMSprop, Variable

READINGS = {
    "an array": ([3, 1, 4], lambda t: t[np.array([3, 1, 4])]),
    "a list": ([3, 1, 4], lambda t: t[[3, 1, 4]]),
    "a range": ([1, 2, 3], lambda t: t[range(1, 4)]),
    "negative": ([5, 0], lambda t: t[np.array([-1, -6])]),
    "repeated": ([2, 2, 2, 5], lambda t: t[np.array([2, 2, 2, 5])]),
    "two axes": ([0, 1, 1, 5], lambda t: t[np.array([[0, 1], [1, 5]])]),
    "nested lists": ([0, 1, 1, 5], lambda t: t[[[0, 1], [1, 5]]]),
    "unsigned": ([3, 1], lambda t: t[np.array([3, 1], np.uint8)]),
    "none": ([], lambda t: t[np.zeros(0, int)]),
    "an empty list": ([], lambda t: t[[]]),
    "take": ([3, 5, 3], lambda t: anp.take(t, [3, -1, 3], axis=0)),
    "take of a method": ([3, 5, 3], lambda t: t.take(np.array([3, -1, 3]), axis=0)),
    "take of NumPy": ([3, 5, 3], lambda t: np.take(t, np.array([3, -1, 3]), 0)),
    "take along the first axis from behind": ([3, 5], lambda t: anp.take(t, [3, 5], axis=1 - t.ndim - 1)),
    "take that wraps": ([0, 3], lambda t: anp.take(t, [6, 9], axis=0, mode="wrap")),
}

OTHERWISE = {
    "one integer": lambda t: t[3],
    "NumPy's integer": lambda t: t[np.int64(3)],
    "an array without axes": lambda t: t[np.array(3)],
    "a slice": lambda t: t[1:4],
    "a mask": lambda t: t[np.arange(6) > 2],
    "a list of flags": lambda t: t[[True, False, True, False, False, True]],
    "a tuple": lambda t: t[np.array([1, 2]), 0],
    "a tuple of one": lambda t: t[(np.array([1, 2]),)],
    "an ellipsis": lambda t: t[...],
    "rows beside all": lambda t: anp.sum(t[[1, 2]]) + anp.sum(t**2),
    "rows beside a slice": lambda t: anp.sum(t[[1, 1]]) + anp.sum(t[:2]),
    "rows of a result": lambda t: (2 * t)[[1, 1, 2]],
    "take of one": lambda t: anp.take(t, 3, axis=0),
    "take of elements": lambda t: anp.take(t, [[3, 1], [-1, 3]]),
    "take of columns": lambda t: anp.take(t, [[1, 0, 1], [1, 1, 1]], axis=1),
    "take of the last": lambda t: anp.take(t, -1, axis=-1),
    "take of a result": lambda t: anp.take(2 * t, [1, 1, 2], axis=0),
    "take that clips": lambda t: anp.take(t, [[1, 9, -4]], axis=1, mode="clip"),
}


def table(dtype=np.float64, shape=(6, 3)):
    rng = np.random.default_rng(0)
    t = rng.standard_normal(shape)
    return (t + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else t).astype(dtype)


def dense(gradient):
    """Return what a gradient means, as an array."""
    if not isinstance(gradient, IndexedSlices):
        return gradient
    full = np.zeros(gradient.dense_shape, gradient.values.dtype)
    np.add.at(full, gradient.indices, gradient.values)
    return full


def squared(x):
    return anp.sum(anp.abs(x) ** 2) + anp.sum(anp.real(x))


def both(reading, source):
    """Return the gradient by a source, and what it means: that where the source is read densely."""
    with GradientTape() as tape:
        value = source.value if isinstance(source, Variable) else tape.watch(source)
        loss, twin = squared(reading(value)), squared(reading(value[:]))
    return tape.gradient(loss, source), tape.gradient(twin, source)


@pytest.mark.parametrize("as_variable", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.complex64, np.complex128])
@pytest.mark.parametrize("name", READINGS)
def test_rows_that_are_read_by_integers_have_sparse_gradients(name, dtype, as_variable):
    rows, reading = READINGS[name]
    t = table(dtype)
    gradient, expected = both(reading, Variable(t) if as_variable else t)
    assert isinstance(gradient, IndexedSlices)
    assert gradient.dense_shape == t.shape
    assert gradient.values.dtype == dtype
    assert gradient.values.shape == (len(rows), 3)
    np.testing.assert_array_equal(gradient.indices, rows)
    assert type(expected) is np.ndarray
    np.testing.assert_allclose(dense(gradient), expected, rtol=1e-2 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize("shape", [(6,), (6, 2, 2)])
def test_tables_have_any_number_of_axes(shape):
    gradient, expected = both(lambda t: t[[[3, -1, 3]]], table(shape=shape))
    assert gradient.values.shape == (3, *shape[1:])
    np.testing.assert_allclose(dense(gradient), expected)
    gradient, expected = both(lambda t: anp.take(t, [3, -1, 3], axis=0), table(shape=shape))
    np.testing.assert_allclose(dense(gradient), expected)


def test_take_without_an_axis_reads_the_elements_of_a_vector():
    gradient, _ = both(lambda t: anp.take(t, [3, -1]), table(shape=(6,)))
    np.testing.assert_array_equal(gradient.indices, [3, 5])


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("name", OTHERWISE)
def test_any_other_reading_is_dense(name, dtype):
    reading, t = OTHERWISE[name], table(dtype)
    gradient, expected = both(reading, t)
    assert type(gradient) is np.ndarray
    np.testing.assert_allclose(gradient, expected)
    if "take" not in name and "flags" not in name:  # of which autograd alone has no gradient, or a wrong one
        np.testing.assert_allclose(gradient, np.conj(autograd.grad(lambda t: squared(reading(t)))(t)))
    eps, direction = 1e-6, table(dtype)[::-1].copy()
    slope = (squared(reading(t + eps * direction)) - squared(reading(t - eps * direction))) / (2 * eps)
    np.testing.assert_allclose(np.sum(gradient * direction.conj()).real, slope, rtol=1e-6)


def test_readings_are_listed_one_after_the_other():
    t = Variable(table())
    with GradientTape() as tape:
        loss = squared(t[[1, 2]]) + squared(t[[2, 5]]) + squared(anp.take(t, [0], axis=0))
    gradient = tape.gradient(loss, t)
    assert sorted(gradient.indices) == [0, 1, 2, 2, 5]
    np.testing.assert_allclose(dense(gradient)[2], 2 * (2 * t.numpy()[2] + 1))
    assert isinstance(tape.gradient([loss, loss], t), IndexedSlices)


def test_an_index_may_be_used_again_for_other_rows():
    t, ids = Variable(table()), np.array([1, 2])
    with GradientTape() as tape:
        loss = squared(t[ids])
        ids[:] = 5
    np.testing.assert_array_equal(tape.gradient(loss, t).indices, [1, 2])


def test_an_index_may_be_a_variable():
    t, ids = Variable(table()), Variable([1, 2])
    with GradientTape() as tape:
        loss = squared(t[ids])
    np.testing.assert_array_equal(tape.gradient(loss, t).indices, [1, 2])


def test_gradients_of_rows_share_no_memory():
    t, u, weights = np.zeros((6, 2)), np.zeros((6, 2)), np.ones((2, 2))
    with GradientTape() as tape:
        loss = tape.watch(t)[[1, 2]] + tape.watch(u)[[1, 2]]
    by_t, by_u = tape.gradient(loss, [t, u], weights)
    by_t.values[:] = 7
    assert (by_u.values == 1).all()
    assert (weights == 1).all()


def test_rows_read_before_and_after_an_assignment_are_summed():
    t = Variable(np.ones((6, 2)))
    with GradientTape() as tape:
        before = squared(t[[1]])
        t.assign_add(np.ones((6, 2)))
        after = squared(t[[1, 2]])
    gradient = tape.gradient([before, after], t)
    assert isinstance(gradient, IndexedSlices)
    np.testing.assert_array_equal(dense(gradient)[:, 0], [0, 8, 5, 0, 0, 0])


def test_a_loss_may_differentiate_rows_by_itself():
    t = table()
    with GradientTape() as tape:
        x = tape.watch(t)
        slope = autograd.grad(lambda y: anp.sum(y[[1, 1, 2]] ** 3))(x)
        loss = anp.sum(slope**2)
    expected = autograd.grad(lambda x: anp.sum(autograd.grad(lambda y: anp.sum(y[[1, 1, 2]] ** 3))(x) ** 2))(t)
    np.testing.assert_allclose(dense(tape.gradient(loss, t)), expected)


@pytest.mark.parametrize("as_variable", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rows_that_are_not_looked_up_do_not_move(momentum, as_variable):
    start = table()
    t = Variable(start) if as_variable else start.copy()
    opt = RMSprop(0.1, momentum=momentum)
    read = (lambda: squared(t[[1, 2]]), lambda: squared(t[[4]])) if as_variable else (
        lambda t: squared(t[[1, 2]]), lambda t: squared(t[[4]])
    )  # fmt: skip
    opt.minimize(read[0], [t])
    after_one = np.array(t)
    opt.minimize(read[1], [t])
    np.testing.assert_array_equal(np.array(t)[[0, 3, 5]], start[[0, 3, 5]])
    np.testing.assert_array_equal(np.array(t)[[1, 2]], after_one[[1, 2]])
    assert (np.array(t)[4] != start[4]).all()


def test_steps_by_rows_are_those_of_the_gradient_written_by_hand():
    start = table(np.float32)
    ours, theirs = Variable(start), start.copy()
    one, two = RMSprop(0.1, momentum=0.5, clipnorm=0.3), RMSprop(0.1, momentum=0.5, clipnorm=0.3)
    for ids in ([1, 2, 1], [5, -1], [0]):
        one.minimize(lambda ids=ids: anp.sum(ours[ids] ** 2), lambda: [ours])
        rows = np.array(ids) % 6
        two.apply_gradients([(IndexedSlices(2 * theirs[rows], rows), theirs)])
    np.testing.assert_array_equal(ours.numpy(), theirs)


def test_what_follows_from_sparse_gradients_follows_as_in_keras():
    t = Variable(table(), constraint=np.abs)
    with pytest.raises(RuntimeError, match="constraint"):
        RMSprop().minimize(lambda: squared(t[[1]]), [t])
    RMSprop().minimize(lambda: squared(t[:][[1]]), [t])
    with pytest.raises(TypeError, match="64"):
        RMSprop(state_dtype="uint8").minimize(lambda t: squared(t[[1]]), [table()])


def test_a_loss_scale_scales_rows():
    from rmsprop import LossScale

    one, two = table(), table()
    RMSprop(0.1, loss_scale=LossScale(8.0, dynamic=False)).minimize(lambda t: squared(t[[1, 1]]), [one])
    RMSprop(0.1).minimize(lambda t: squared(t[[1, 1]]), [two])
    np.testing.assert_array_equal(one, two)


def test_take_is_followed_nowhere_but_in_a_tape():
    with pytest.raises(NotImplementedError, match="take"):
        autograd.grad(lambda t: anp.sum(anp.take(t, [1, 2], axis=0)))(table())
