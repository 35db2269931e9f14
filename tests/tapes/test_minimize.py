"""Differentiation: the tape, and all forms of loss and variables that minimize takes."""

import array_api_strict
import autograd.numpy as anp
import numpy as np
import pytest

from rmsprop import GradientTape, IndexedSlices, RMSprop, Variable


def gradients(loss, variables, **kwargs):
    """Return what minimize passes on."""
    seen = []

    def keep(pairs):
        seen.extend(pairs)
        return pairs

    RMSprop(gradient_aggregator=keep).minimize(loss, variables, **kwargs)
    return [g for g, _ in seen]


def test_the_tape_gives_gradients_of_each_source():
    x, y = Variable([1.0, 2.0]), Variable(3.0)
    with GradientTape() as tape:
        loss = anp.sum(x * x) * y
    dx, dy, none = tape.gradient(loss, [x, y, Variable(1.0)])
    np.testing.assert_array_equal(dx, [6, 12])
    assert dy == 5
    assert none is None
    assert dx.dtype == np.float32


@pytest.mark.parametrize(
    "loss",
    [
        lambda v: anp.sum(v.value**2),
        lambda v: anp.sum(v**2),
        lambda v: np.sum(v * v),
        lambda v: v @ v,
        lambda v: anp.dot(v, v),
        lambda v: np.square(v)[0] + np.square(v)[1],
        lambda v: anp.sum(anp.stack([v, v]) ** 2) / 2,
    ],
)
def test_a_loss_can_be_written_in_any_way(loss):
    v = Variable(np.array([1.0, 2.0]))
    (g,) = gradients(lambda: loss(v), [v])
    np.testing.assert_allclose(g, [2, 4])


def test_watching_decides_what_is_followed():
    a, b = Variable([2.0]), Variable([3.0], trainable=False)
    with GradientTape() as tape:
        loss = a[0] * b[0]
    assert tape.gradient(loss, a) == 3
    assert tape.gradient(loss, b) is None
    with GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(b)
        loss = a[0] * b[0]
    assert tape.gradient(loss, a) is None
    assert tape.gradient(loss, b) == 2


def test_plain_arrays_are_followed_from_watch_on():
    w = np.array([1.0, 2.0])
    with GradientTape() as tape:
        x = tape.watch(w)
        loss = anp.sum(x**3)
    np.testing.assert_allclose(tape.gradient(loss, w), [3, 12])


def test_output_gradients_weight_the_elements_of_the_target():
    v = Variable(np.array([1.0, 2.0]))
    with GradientTape() as tape:
        target = v * v
    np.testing.assert_array_equal(tape.gradient(target, v), [2, 4])
    np.testing.assert_array_equal(tape.gradient(target, v, output_gradients=[2.0, 0.0]), [4, 0])
    with pytest.raises(ValueError, match="output_gradients"):
        tape.gradient(target, v, output_gradients=[1.0])


def test_outside_of_the_tape_variables_are_plain_again():
    v = Variable([1.0])
    with pytest.raises(RuntimeError, match="user"), GradientTape():
        _ = v * 2
        raise RuntimeError("user")
    assert type(v.value) is np.ndarray


def test_tapes_can_be_nested_in_time_not_in_each_other():
    v = Variable(np.array(3.0))
    with GradientTape() as one:
        a = v**2
    with GradientTape() as two:
        b = v**3
    assert (one.gradient(a, v), two.gradient(b, v)) == (6, 27)
    with GradientTape() as outer:
        c = v**2
        with pytest.raises(RuntimeError, match="nested"), GradientTape():
            pass
        c = c * v
    assert outer.gradient(c, v) == 27


def test_complex_gradients_are_directions_of_descent():
    target = np.array([1 + 2j, -1j])
    z = Variable(np.zeros(2, complex))

    def loss():
        return anp.sum(anp.abs(z - target) ** 2)

    (g,) = gradients(loss, [z])
    np.testing.assert_allclose(g, -2 * target)
    opt = RMSprop(0.05)
    for _ in range(200):
        opt.minimize(loss, [z])
    np.testing.assert_allclose(z.numpy(), target, atol=0.05)


def test_a_loss_of_plain_arrays_gets_their_values():
    a, b = np.array([1.0, 2.0]), np.array(3.0)
    da, db = gradients(lambda a, b: anp.sum(a * a) * b, [a, b])
    np.testing.assert_array_equal(da, [6, 12])
    assert db == 5
    assert (a < [1, 2]).all()


def test_var_list_may_be_one_nested_or_callable():
    a, b = Variable(np.array(2.0)), Variable(np.array(5.0))
    for variables, expected in [
        (a, [5]), ((a,), [5]), ([a, [b]], [5, 2]), ({"y": a, "x": b}, [2, 5]), (lambda: [b], [2]),
    ]:  # fmt: skip
        a.assign(2.0)
        b.assign(5.0)
        np.testing.assert_allclose(gradients(lambda: a * b, variables), expected)


def test_grad_loss_weights_a_loss_of_several_elements():
    v = Variable(np.array([1.0, 2.0]))
    opt = RMSprop()
    opt.minimize(lambda: v * v, [v], grad_loss=[2.0, 0.0])
    np.testing.assert_allclose(opt.get_slot(v, "rms").numpy(), [1.6, 0])


def test_a_loss_as_a_value_needs_its_tape():
    v = Variable(np.array(3.0))
    with GradientTape() as tape:
        loss = v**2
    RMSprop().minimize(loss, [v], tape=tape)
    assert v.numpy() < 3
    with pytest.raises(ValueError, match="`tape` is required"):
        RMSprop().minimize(loss, [v])


def test_anything_with_a_gradient_method_is_a_tape():
    class Tape:
        def gradient(self, target, sources, output_gradients):
            return [target * np.ones(2) for _ in sources]

    v = np.ones(2)
    (g,) = gradients(3.0, [v], tape=Tape())
    np.testing.assert_array_equal(g, [3, 3])


class FollowedTape:
    """A tape of numbers and their slopes, which keeps account of what it is asked."""

    def __init__(self):
        self.asked = []

    def __enter__(self):
        self.asked.append("enter")
        return self

    def __exit__(self, *exception):
        self.asked.append("exit")

    def watch(self, source):
        self.asked.append("watch")
        return len(self.asked) - 2

    def gradient(self, target, sources, output_gradients):
        self.asked.append(("gradient", target, len(sources), output_gradients))
        return [2 * np.ones(2) for _ in sources]


def test_a_loss_is_recorded_by_the_tape_that_is_given():
    v, w, tape = Variable(np.ones(2)), np.ones(2), FollowedTape()
    loss = lambda a, b: tape.asked.append(("loss", a, b)) or 7.0  # noqa: E731
    expected = ["enter", "watch", "watch", ("loss", 0, 1), "exit", ("gradient", 7.0, 2, 0.5)]
    for variables in ([v, w], [w, v], [v, Variable(np.ones(2))]):
        tape.asked.clear()
        assert [g.tolist() for g in gradients(loss, variables, tape=tape, grad_loss=0.5)] == [[2, 2], [2, 2]]
        assert tape.asked == expected


def test_a_tape_lets_arrays_of_any_library_be_differentiated():
    v = Variable(array_api_strict.ones(2))
    tape = FollowedTape()
    tape.gradient = lambda target, sources, output_gradients: [2 * source.array for source in sources]
    RMSprop().minimize(lambda: 7.0, [v], tape=tape)
    assert (v.numpy() < 1).all()


def test_a_tape_may_be_used_for_many_steps():
    v, w, opt, tape = Variable(np.ones(2)), np.ones(2), RMSprop(0.1), GradientTape()
    for _ in range(100):
        opt.minimize(lambda: (v - 3) ** 2, [v], tape=tape)
        opt.minimize(lambda w: (w - 3) ** 2, [w], tape=tape)
    np.testing.assert_allclose([v.numpy(), w], 3, atol=0.1)


def test_a_tape_that_would_not_be_used_is_refused():
    w = np.ones(2)
    with pytest.raises(ValueError, match="`tape` and `jac=True` exclude each other"):
        RMSprop().minimize(lambda w: (w @ w, 2 * w), [w], tape=GradientTape(), jac=True)
    assert (w == 1).all()


def test_variables_may_be_arguments_of_a_loss():
    v = Variable(np.array([1.0, 2.0]))
    for loss in (lambda w: w @ w, lambda w=v: w @ w):
        v.assign([1.0, 2.0])
        np.testing.assert_array_equal(gradients(loss, [v])[0], [2, 4])


def test_a_loss_is_called_once_per_step():
    calls, v = [], Variable([1.0])
    RMSprop().minimize(lambda: calls.append(1) or v**2, [v])
    assert len(calls) == 1


def scaled_in_place(w):
    """Return loss and gradient by code that autograd cannot follow."""
    buffer = np.empty_like(w)
    np.multiply(w, 2, out=buffer)
    return float(buffer @ buffer), [buffer]


def test_a_loss_may_return_its_own_gradients():
    v, w = Variable(np.ones(2)), np.ones(2)
    for loss, variables, jac in [
        (lambda: (v @ v, [2 * v]), [v], False),
        (lambda: scaled_in_place(v.numpy()), [v], False),
        (lambda: scaled_in_place(w), [w], False),
        (lambda w: (w @ w, 2 * w), [w], False),
        (lambda: scaled_in_place(v.value), [v], True),
        (scaled_in_place, [w], True),
    ]:
        v.assign(np.ones(2))
        w[:] = 1
        np.testing.assert_array_equal(gradients(loss, variables, jac=jac)[0], [2, 2])
    with pytest.raises(TypeError) as caught:
        RMSprop().minimize(scaled_in_place, [w])
    assert "jac=True" in caught.value.__notes__[0]


def test_with_jac_the_loss_gets_plain_values():
    seen, w = [], np.ones(2)
    RMSprop().minimize(lambda w: (seen.append(w), 2 * w), [w], jac=True)
    assert seen[0] is w


def test_one_tape_gives_two_losses_their_gradients_with_a_step_in_between():
    d, g = Variable([2.0]), Variable([3.0])
    with GradientTape() as tape:
        loss = d * g
    RMSprop(1.0).apply_gradients([(tape.gradient(loss, d), d)])
    np.testing.assert_array_equal(tape.gradient(loss, g), [2])


def test_assignment_inside_of_a_tape_counts_from_there_on():
    v = Variable([2.0])
    with GradientTape() as tape:
        before = v**2
        v.assign_add([1.0])
        after = v**2
    np.testing.assert_array_equal(tape.gradient(before, v), [4])
    np.testing.assert_array_equal(tape.gradient(after, v), [6])
    np.testing.assert_array_equal(tape.gradient([before, after], v), [10])


def test_a_step_inside_of_a_tape_counts_from_there_on():
    v = Variable([2.0])
    with GradientTape() as tape:
        _ = v**2
        RMSprop(0.1).apply_gradients([(np.ones(1), v)])
        after = v**2
    np.testing.assert_allclose(tape.gradient(after, v), 2 * v.numpy())


def test_a_replayed_step_inside_of_a_tape_counts_from_there_on():
    v, opt = Variable([2.0]), RMSprop(0.1)
    pairs = [(np.ones(1, np.float32), v)]
    for _ in range(2):
        opt.apply_gradients(pairs)
    with GradientTape() as tape:
        _ = v**2
        opt.apply_gradients(pairs)
        after = v**2
    np.testing.assert_allclose(tape.gradient(after, v), 2 * v.numpy())


def test_gradients_share_no_memory():
    x, y = Variable([1.0, 2.0]), Variable([1.0, 2.0])
    with GradientTape() as tape:
        loss = x + y
    dx, dy = tape.gradient(loss, [x, y])
    dx *= 0
    np.testing.assert_array_equal(dy, [1, 1])


def test_var_list_may_be_a_generator():
    v = Variable(np.ones(2))
    RMSprop().minimize(lambda: v @ v, (each for each in [v]))
    assert (v.numpy() < 1).all()


def test_what_a_tape_cannot_follow_is_refused():
    v = Variable([2.0])
    with GradientTape() as tape:
        stacked = np.array([v[0] * 2, v[0]])
        with pytest.raises(RuntimeError, match="nested"), GradientTape():
            pass
    with pytest.raises(TypeError, match="autograd.numpy"):
        tape.gradient(stacked, v)
    for closed in (GradientTape(), tape):
        with pytest.raises(RuntimeError, match="with"):
            closed.watch(Variable([1.0]))
    with GradientTape(), pytest.raises(TypeError, match="getval"):
        v.assign(v * 2)


def test_sources_may_be_nested():
    a, b = Variable([2.0]), Variable([3.0])
    with GradientTape() as tape:
        loss = a * b
    assert tape.gradient(loss, {"x": a, "y": [b]}) == {"x": [3], "y": [[2]]}


def test_own_gradients_may_be_sparse():
    table = Variable(np.ones((4, 2)))
    (g,) = gradients(lambda: (0.0, [IndexedSlices(2 * table[:2], [1, 3])]), [table])
    assert isinstance(g, IndexedSlices)
    assert (table.numpy()[[0, 2]] == 1).all()
    assert (table.numpy()[[1, 3]] < 1).all()


def test_arrays_of_other_libraries_need_a_loss_with_gradients():
    v = Variable(array_api_strict.ones(2))
    with pytest.raises(TypeError, match="array_api_strict.*") as caught:
        RMSprop().minimize(lambda: array_api_strict.sum(v.value**2), [v])
    assert "(value, gradients)" in str(caught.value)
    RMSprop().minimize(lambda: (0.0, [2 * v.value]), [v])
    assert (v.numpy() < 1).all()


def test_an_error_of_the_loss_reaches_the_caller():
    v = Variable([1.0])
    with pytest.raises(ZeroDivisionError):
        RMSprop().minimize(lambda: 1 / 0, [v])
    assert v.numpy() == 1


@pytest.mark.parametrize("result", [(1.0, []), (1.0, [1, 2]), (1.0, 2.0, 3.0), (1.0,)])
def test_own_gradients_must_be_as_many_as_the_variables(result):
    v = Variable([1.0])
    with pytest.raises(ValueError, match="1 gradients"):
        RMSprop().minimize(lambda: result, [v])


def test_a_loss_that_depends_on_no_variable_is_refused():
    v, idle = Variable([1.0], name="used"), Variable([1.0], name="idle")
    with pytest.raises(ValueError, match="No gradients provided.*'idle'"):
        RMSprop().minimize(lambda: anp.sum(v**2), [idle])
    with pytest.raises(ValueError, match="'idle'.* has `None` for gradient"):
        RMSprop().get_gradients(lambda: anp.sum(v**2), [v, idle])


def test_get_gradients_takes_no_step_and_get_updates_one():
    v, opt = Variable(np.array([1.0, 2.0])), RMSprop()
    (g,) = opt.get_gradients(lambda: v @ v, [v])
    np.testing.assert_array_equal(g, [2, 4])
    assert opt.iterations == 0
    (count,) = opt.get_updates(lambda: v @ v, [v])
    assert count == 1
    assert (v.numpy() < [1, 2]).all()


def test_no_variables_are_no_step():
    assert RMSprop().minimize(lambda: 1.0, []) is None


def test_no_operator_or_function_loses_the_gradient_of_a_variable():
    x, y = Variable(np.array([1.0, 2.0])), Variable(np.array([3.0, 5.0]))
    losses = [
        lambda: (x * 2) * y, lambda: y * (x * 2), lambda: anp.multiply(x * 2, y), lambda: np.multiply(x * 2, y),
        lambda: anp.multiply(2 * y, x), lambda: anp.array([2.0, 2.0]) * x * y, lambda: np.full(2, 2.0) * (x * y),
        lambda: anp.where(x > 0, 2 * x * y, y), lambda: 2 * anp.exp(anp.log(x) + anp.log(y)),
    ]  # fmt: skip
    for loss in losses:
        with GradientTape() as tape:
            value = loss()
        dx, dy = tape.gradient(value, [x, y])
        np.testing.assert_allclose(dx, [6, 10])
        np.testing.assert_allclose(dy, [2, 4])
    np.testing.assert_allclose(anp.exp(x), np.exp([1.0, 2.0]))
