"""Slots and weights: their order, their identity, and how they are set."""

import numpy as np
import pytest

from rmsprop import RMSprop, Variable


def stepped(opt, *variables):
    opt.apply_gradients([(np.ones(np.shape(v), v.dtype), v) for v in variables])


def test_weights_are_in_the_order_of_keras():
    a, b, c = np.ones(2), np.ones(3), np.ones(4)
    opt = RMSprop(momentum=0.9, centered=True)
    stepped(opt, a, b)
    assert [w.shape for w in opt.get_weights()] == [(), (2,), (3,), (2,), (3,), (2,), (3,)]
    stepped(opt, c)
    assert [w.shape for w in opt.get_weights()][7:] == [(4,), (4,), (4,)]
    assert opt.get_slot_names() == ["rms", "momentum", "mg"]
    assert opt.variables() == opt.weights or [v is w for v, w in zip(opt.variables(), opt.weights, strict=True)]


def test_slots_that_are_not_needed_do_not_exist():
    v = np.ones(2)
    opt = RMSprop()
    stepped(opt, v)
    assert opt.get_slot_names() == ["rms"]
    with pytest.raises(KeyError, match="momentum"):
        opt.get_slot(v, "momentum")


def test_slots_are_named_after_optimizer_and_variable():
    v = Variable([1.0], name="w")
    opt = RMSprop(name="fast")
    opt.build([v])
    assert [w.name for w in opt.weights] == ["iterations", "fast/w/rms"]


def test_iterations_count_steps_and_can_be_assigned():
    opt, v = RMSprop(), np.ones(2)
    assert opt.iterations.dtype == np.int64
    stepped(opt, v)
    stepped(opt, v)
    assert opt.iterations == 2
    opt.iterations.assign(10)
    stepped(opt, v)
    assert int(opt.iterations) == 11


def test_iterations_can_be_replaced_only_before_there_are_slots():
    opt, v = RMSprop(), np.ones(2)
    shared = Variable(5, dtype=np.int64)
    opt.iterations = shared
    stepped(opt, v)
    assert int(shared) == 6
    with pytest.raises(RuntimeError, match="Cannot set `iterations`"):
        opt.iterations = 0
    with pytest.raises(ValueError, match="int64 scalar"):
        RMSprop().iterations = Variable([1.0])


def test_views_of_the_same_memory_are_the_same_variable():
    w = np.ones((3, 2))
    opt = RMSprop()
    for _ in range(3):
        stepped(opt, w[0])
    assert len(opt.weights) == 2
    np.testing.assert_array_equal(opt.get_slot(w[0], "rms").numpy(), opt.weights[1].numpy())
    with pytest.raises(KeyError):
        opt.get_slot(w[1], "rms")


def test_a_variable_that_is_gone_is_not_mistaken_for_a_new_one():
    opt = RMSprop()
    for _ in range(20):
        stepped(opt, np.ones(1000))
    assert len(opt.weights) == 21


def test_build_creates_slots_so_that_weights_can_be_restored_before_any_step():
    v = np.ones(2)
    opt = RMSprop(momentum=0.5)
    opt.build({"b": [v], "a": (np.ones(3),)})
    assert [w.shape for w in opt.weights] == [(), (3,), (2,), (3,), (2,)]
    assert opt.iterations == 0
    opt.build([v])
    assert len(opt.weights) == 5


def test_set_weights_without_iterations_resets_them():
    opt, v = RMSprop(), np.ones(2)
    stepped(opt, v)
    opt.set_weights([np.array([3.0, 4.0])])
    assert opt.iterations == 0
    np.testing.assert_array_equal(opt.get_slot(v, "rms").numpy(), [3, 4])


def test_get_weights_are_copies():
    opt, v = RMSprop(), np.ones(2)
    stepped(opt, v)
    opt.get_weights()[1][:] = 7
    assert (opt.get_slot(v, "rms").numpy() != 7).all()


BAD_WEIGHTS = [
    ([1, 2, 3, 4], "4 weights"),
    ([0, np.ones(3)], r"shape \(2,\); given one of shape \(3,\)"),
    ([7, np.ones((1, 2))], r"shape \(2,\); given one of shape \(1, 2\)"),
    ([7, np.ones((2, 1))], r"shape \(2,\); given one of shape \(2, 1\)"),
    ([7, 1.0], r"shape \(2,\); given one of shape \(\)"),
    ([0, np.ones(2, complex)], "dtype float64; given one of dtype complex128"),
    ([0.5, np.ones(2)], "whole number"),
    ([-1, np.ones(2)], "not negative"),
    ([1e30, np.ones(2)], "whole number"),
    ([0, -np.ones(2)], "average of squares"),
    ([0, np.array(["a", "b"])], "dtype"),
]


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS)
def test_weights_that_do_not_fit_change_nothing(weights, message):
    opt, v = RMSprop(), np.ones(2)
    stepped(opt, v)
    before = opt.get_weights()
    with pytest.raises(ValueError, match=message):
        opt.set_weights(weights)
    for a, b in zip(opt.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_for_an_optimizer_that_is_not_built_say_how_to_build_it():
    with pytest.raises(ValueError, match=r"build\(var_list\)"):
        RMSprop().set_weights([np.array(1), np.ones(2)])


def test_slots_of_half_precision_hold_float32():
    v = np.ones(2, np.float16)
    opt = RMSprop(0.001, momentum=0.5, centered=True)
    opt.apply_gradients([(np.full(2, 1e-4, np.float16), v)])
    assert {w.dtype for w in opt.get_weights()[1:]} == {np.dtype(np.float32)}
    assert (v != 0).all()  # squared in float16, this gradient would vanish and its step explode


def test_slots_of_complex_variables():
    v = np.ones(2, np.complex64)
    opt = RMSprop(momentum=0.5, centered=True)
    opt.build([v])
    assert [w.dtype for w in opt.get_weights()[1:]] == [np.float32, np.complex64, np.complex64]
    opt = RMSprop(complex_as_real=True)
    opt.build([v])
    assert opt.get_weights()[1].dtype == np.complex64


def test_add_slot_returns_the_slot_there_is():
    opt, v = RMSprop(), np.ones(2)
    slot = opt.add_slot(v, "mine", "ones")
    assert opt.add_slot(v, "mine", "zeros") is slot
    np.testing.assert_array_equal(slot.numpy(), [1, 1])
    stepped(opt, v)
    assert opt.get_slot_names() == ["mine", "rms"]
    assert [w.shape for w in opt.get_weights()] == [(), (2,), (2,)]


def test_add_slot_takes_shapes_values_and_callables():
    opt, v = RMSprop(), np.ones(2, np.float32)
    assert opt.add_slot(v, "a", shape=(3, 4)).shape == (3, 4)
    np.testing.assert_array_equal(opt.add_slot(v, "b", np.arange(3)).numpy(), [0, 1, 2])
    made = opt.add_slot(v, "c", lambda shape, dtype: np.full(shape, 5, dtype))
    np.testing.assert_array_equal(made.numpy(), [5, 5])
    assert made.dtype == np.float32
    with pytest.raises(ValueError, match="Unknown initializer: 'nope'"):
        opt.add_slot(v, "d", "nope")
    assert opt.get_slot_names() == ["a", "b", "c"]


def test_slots_that_steps_use_have_the_shape_and_dtype_that_they_need():
    opt, v = RMSprop(), np.ones(2, np.complex64)
    for bad in ({"shape": (1,)}, {"initializer": np.ones(3)}):
        with pytest.raises(ValueError, match="RMSprop/array/rms has shape"):
            opt.add_slot(v, "rms", **bad)
    with pytest.raises(TypeError, match="initializer"):
        opt.add_slot(v, "mine", None)
    assert opt.get_slot_names() == []
    with pytest.raises(TypeError, match="real"):
        opt.add_slot(v, "rms", np.ones(2, complex))
    assert opt.add_slot(v, "rms", np.ones(2, np.float32)).dtype == np.float32
    opt.apply_gradients([(v, v)])
    np.testing.assert_allclose(opt.get_weights()[1], [1, 1])


def test_add_weight_is_not_among_the_weights():
    opt = RMSprop()
    extra = opt.add_weight("extra", (2,), initializer="ones")
    assert (extra.name, extra.dtype, extra.trainable) == ("extra", np.float32, True)
    np.testing.assert_array_equal(extra.numpy(), [1, 1])
    assert len(opt.weights) == 1
    assert not opt.add_weight("x", (), np.int64, synchronization="ON_READ").trainable
    with pytest.raises(ValueError, match="on_read"):
        opt.add_weight("x", (), trainable=True, synchronization="on_read")


def test_variables_without_a_gradient_get_no_slots_and_a_warning(caplog):
    a, b = np.ones(2), Variable([1.0], name="idle")
    opt = RMSprop()
    opt.apply_gradients([(np.ones(2), a), (None, b)])
    assert len(opt.weights) == 2
    assert "'idle'" in caplog.text
    assert b.numpy() == 1


def test_an_empty_list_is_no_step():
    opt = RMSprop()
    assert opt.apply_gradients([]) is None
    assert opt.iterations == 0


def test_constraints_are_applied_after_the_update():
    v = Variable([0.05, 1.0], constraint=lambda w: np.maximum(w, 0))
    RMSprop(0.1).apply_gradients([(np.ones(2, np.float32), v)])
    assert v.numpy()[0] == 0
    assert v.numpy()[1] == pytest.approx(0.68377, rel=1e-4)


@pytest.mark.parametrize("constraint", [lambda w: 1 / 0, lambda w: np.ones(5), lambda w: w * 1j])
def test_a_constraint_that_fails_undoes_the_step(constraint):
    good, bad = np.ones(2), Variable([1.0, 2.0], constraint=constraint)
    opt = RMSprop()
    stepped(opt, good)
    before = good.copy(), bad.numpy(), opt.get_slot(good, "rms").numpy()
    with pytest.raises((ZeroDivisionError, ValueError, TypeError)):
        stepped(opt, good, bad)
    after = good, bad.numpy(), opt.get_slot(good, "rms").numpy()
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert opt.iterations == 1
