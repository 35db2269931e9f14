"""Slots and weights: their order, their identity, and how they are set."""

import copy
import pickle

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
    expected = [(), *[(2,), (3,), (4,)] * 3]  # where c joins later, too: Keras lists all of its slots at the end
    assert [w.shape for w in opt.get_weights()] == expected
    assert opt.get_slot_names() == ["rms", "momentum", "mg"]
    assert opt.variables() == opt.weights or [v is w for v, w in zip(opt.variables(), opt.weights, strict=True)]


def test_the_order_of_weights_does_not_depend_on_when_slots_were_created():
    a, b = np.ones(2), np.ones(3)
    opt, other = RMSprop(centered=True), RMSprop(momentum=0.9, centered=True)
    opt.add_slot(b, "mine", shape=(5,))
    opt.add_slot(a, "mg")
    stepped(opt, a, b)
    opt.momentum = 0.9
    stepped(opt, b, a)
    stepped(other, b, a)
    assert [w.shape for w in opt.weights] == [(), *[(3,), (2,)] * 3, (5,)]
    names = [w.name.rpartition("/")[2] for w in opt.weights[1:]]
    assert names == ["rms"] * 2 + ["momentum"] * 2 + ["mg"] * 2 + ["mine"]
    for weight, variable in zip(opt.weights[1:], [b, a] * 3 + [b], strict=True):
        assert opt.get_slot(variable, weight.name.rpartition("/")[2]) is weight
    other.set_weights(opt.get_weights()[:-1])
    for name in ("rms", "momentum", "mg"):
        for variable in (a, b):
            np.testing.assert_array_equal(
                opt.get_slot(variable, name).numpy(), other.get_slot(variable, name).numpy()
            )


def test_loaded_state_has_its_weights_in_the_order_that_they_had(tmp_path):
    a, b, c = np.ones(2), np.ones(2), np.ones(2)
    opt = RMSprop(momentum=0.9)
    opt.apply_gradients([(np.full(2, 3.0), b)])
    opt.apply_gradients([(np.full(2, 5.0), a), (np.full(2, 7.0), c)])
    opt.save(tmp_path / "w.safetensors", {"a": a, "b": b, "c": c})
    again = RMSprop.load(tmp_path / "w.safetensors")
    for _ in range(2):
        for one, other in zip(opt.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        again.build({"c": c, "a": a, "b": b})


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


def test_slots_of_plain_arrays_have_distinct_names(tmp_path):
    a, b, c, d, e = np.ones(2), Variable([1.0], name="array_1"), np.ones(2), np.ones(2), np.ones(2)
    opt = RMSprop()
    stepped(opt, a, c)
    stepped(opt, b, d)
    opt.add_slot(e, "mine")
    for optimizer in (opt, pickle.loads(pickle.dumps(opt)), copy.deepcopy(opt)):
        assert [w.name for w in optimizer.weights[1:]] == [
            "RMSprop/array/rms",
            "RMSprop/array_1/rms",
            "RMSprop/array_1/rms",  # the name of the variable is the user's
            "RMSprop/array_2/rms",
            "RMSprop/array_3/mine",
        ]
    opt.save(tmp_path / "w.safetensors", [a, b, c, d, e])  # by the names in the list, as ever
    assert [w.name for w in RMSprop.load(tmp_path / "w.safetensors").weights[1:]] == [
        *[f"RMSprop/{name}/rms" for name in ("0", "2", "array_1", "3")],
        "RMSprop/4/mine",
    ]


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
        assert opt.weights[1].numpy().sum() == pytest.approx(100)  # after one step
        opt.forget()
        assert len(opt.weights) == 1


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
    ([2**62 + 1, np.ones(2)], "up to 2\\*\\*62"),
    ([2**63 - 1, np.ones(2)], "up to 2\\*\\*62"),
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


@pytest.mark.parametrize("bad", [-1 + 1j, 1 - 1j, -1j])
def test_an_average_that_is_negative_in_either_part_is_refused(bad):
    opt, v = RMSprop(complex_as_real=True), np.ones(2, complex)
    opt.build([v])
    weights = [0, np.array([1, bad])]
    for give in (lambda: opt.set_weights(weights), lambda: opt.add_slot(np.ones(2, complex), "rms", weights[1])):
        with pytest.raises(ValueError, match="average of squares"):
            give()
        assert len(opt.weights) == 2
        assert not opt.get_weights()[1].any()


BAD_COUNTS = [
    -5,
    2.7,
    -0.5,
    2**62 + 2**12,
    2**63 - 1,
    2**63,
    2**64 - 1,
    1e30,
    float("nan"),
    float("inf"),
    1j,
    [3],
    None,
    "3",
]


@pytest.mark.parametrize("count", BAD_COUNTS, ids=str)
def test_counts_are_whole_numbers_that_can_be_counted_on_from(count):
    opt, v = RMSprop(), np.ones(2)
    forms = [count]
    if isinstance(count, int | float):
        forms += [np.float64(count), np.array(count)]
    if isinstance(count, int) and count < 2**63:
        forms += [Variable(np.array(count, np.int64))]
    for form in forms:
        with pytest.raises((ValueError, TypeError), match="iterations"):
            opt.iterations = form
        assert opt.iterations == 0
    opt.build([v])
    for form in forms:
        with pytest.raises((ValueError, TypeError), match="iterations"):
            opt.iterations.assign(form)
        assert opt.iterations == 0


@pytest.mark.parametrize(
    "settings", [{}, {"state_dtype": "uint8"}, {"decay": 0.1}, {"nonfinite": "skip"}], ids=str
)
def test_steps_go_on_from_the_largest_count(settings, tmp_path):
    opt, v = RMSprop(**settings), np.ones(2, np.float32)
    opt.iterations = 2**62
    stepped(opt, v)
    opt.iterations.assign(2**62)
    opt.save(tmp_path / "w.safetensors", [v])
    opt = RMSprop.load(tmp_path / "w.safetensors")
    opt.build([v])
    opt.set_weights(opt.get_weights())
    stepped(opt, v)
    assert int(opt.iterations) == 2**62 + 1
    assert np.isfinite(v).all()


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
