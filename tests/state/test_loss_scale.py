"""Loss scaling: gradients divided in the update, and a scale that follows overflows as in Keras."""

import copy
import json
import pickle

import array_api_strict
import autograd.numpy as anp
import numpy as np
import pytest

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable

CLIPPING = [{}, {"clipvalue": 0.5}, {"clipnorm": 0.5}, {"clipvalue": 0.8, "global_clipnorm": 0.5}]


def scaled_optimizer(scale=2.0**10, **settings):
    return RMSprop(0.1, nonfinite="skip", loss_scale=LossScale(scale), **settings)


@pytest.mark.parametrize("settings", CLIPPING, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("is_replayed", [False, True])
def test_scaled_gradients_give_the_bits_of_unscaled_ones(settings, dtype, is_replayed):
    rng = np.random.default_rng(0)
    one, two = ([np.ones(5, dtype), np.ones((4, 6), dtype), np.ones((3, 2), dtype)] for _ in range(2))
    if not is_replayed:
        one[1], two[1] = one[1][::2, ::-3], two[1][::2, ::-3]
    plain, scaled = RMSprop(0.1, **settings), scaled_optimizer(**settings)
    for step in range(4):
        gradients = [rng.standard_normal(v.shape).astype(dtype) for v in one]
        for opt, variables, factor in ((plain, one, 1), (scaled, two, 2**10)):
            values = [(g * factor).astype(dtype) for g in gradients]
            if step % 2 and not is_replayed:
                values[2] = IndexedSlices(values[2], np.array([2, 0, 2]))
            opt.apply_gradients(list(zip(values, variables, strict=True)))
    for a, b in zip([*one, *plain.get_weights()], [*two, *scaled.get_weights()], strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("settings", [{}, {"clipnorm": 0.5}], ids=str)
def test_gradients_of_other_libraries_and_compact_state_are_divided_too(settings):
    v, n = Variable(array_api_strict.ones(3)), np.ones(3)
    w, m = (np.ones(300, np.float32) for _ in range(2))
    opt = scaled_optimizer(**settings)
    opt.apply_gradients([(array_api_strict.ones(3) * 1024, v), (np.full(3, 1024.0), n)])
    plain = RMSprop(0.1, **settings)
    x = np.ones(3)
    plain.apply_gradients([(np.ones(3), x)])
    np.testing.assert_allclose(v.numpy(), x, rtol=1e-15)
    np.testing.assert_allclose(n, x, rtol=1e-15)
    scaled_optimizer(state_dtype="uint8", **settings).apply_gradients([(np.full(300, 1024, np.float32), w)])
    RMSprop(0.1, state_dtype="uint8", **settings).apply_gradients([(np.ones(300, np.float32), m)])
    np.testing.assert_array_equal(w, m)


def test_the_scale_is_halved_at_overflows_and_doubled_after_steps_in_a_row():
    v = np.ones(2, np.float16)
    opt = RMSprop(0.001, nonfinite="skip", loss_scale=LossScale(4.0, dynamic_growth_steps=3))
    seen = []
    for outcome in "111" + "0" + "11" + "0000" + "1111":
        gradient = np.full(2, 1 if outcome == "1" else np.inf, np.float16)
        opt.apply_gradients([(gradient, v)])
        seen.append((opt.loss_scale.scale, opt.loss_scale.dynamic_counter))
    assert seen == [
        (4, 1), (4, 2), (8, 0), (4, 0), (4, 1), (4, 2), (2, 0), (1, 0), (1, 0), (1, 0),
        (1, 1), (1, 2), (2, 0), (2, 1),
    ]  # fmt: skip
    assert (opt.iterations, opt.skipped) == (9, 5)


def test_the_scale_grows_no_further_than_single_precision_can_divide_by():
    v, scale = np.ones(2), LossScale(2.0**125, dynamic_growth_steps=1)
    opt = RMSprop(nonfinite="skip", loss_scale=scale)
    for _ in range(3):
        opt.apply_gradients([(np.ones(2), v)])
    assert scale.scale == 2.0**126


def test_a_scale_that_is_not_dynamic_stays_and_needs_no_looking_at_gradients():
    v = np.ones(2)
    opt = RMSprop(0.1, loss_scale=LossScale(8.0, dynamic=False))
    opt.apply_gradients([(np.array([8.0, np.nan]), v)])
    assert np.isnan(v).tolist() == [False, True]
    assert v[0] == pytest.approx(1 - 0.31622766)
    assert opt.loss_scale.scale == 8


@pytest.mark.parametrize("name", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_limits_that_no_gradient_comes_to_stay_so_times_the_scale(name):
    v = np.ones(2, np.float32)
    scaled_optimizer(**{name: np.finfo(np.float64).max}).apply_gradients([(np.float32([2**10, 2**10]), v)])
    assert v == pytest.approx(1 - 0.31622766)


def test_a_failed_step_is_no_step_of_the_scale():
    opt, v = scaled_optimizer(), Variable(np.ones(2), constraint=lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        opt.apply_gradients([(np.ones(2), v)])
    assert opt.loss_scale.dynamic_counter == 0


def test_tapes_differentiate_the_scaled_loss():
    def loss():
        return anp.sum((v - 3) ** 2)

    v, w = (Variable(np.arange(2.0), name="v") for _ in range(2))
    scaled, plain = scaled_optimizer(), RMSprop(0.1)
    for opt, variable in ((scaled, v), (plain, w)):
        opt.minimize(lambda x=variable: anp.sum((x - 3) ** 2), [variable])
        opt.minimize(lambda x=variable: (x - 3) ** 2, [variable], grad_loss=[1.0, 2.0])
        opt.get_updates(lambda x=variable: anp.sum((x - 3) ** 2), [variable])
    np.testing.assert_array_equal(v.numpy(), w.numpy())
    assert scaled.get_gradients(loss, [v])[0][0] == pytest.approx(2 * (v.numpy()[0] - 3))
    scale = scaled.loss_scale
    scaled.minimize(lambda x: (x[0], 1024 * np.ones(2)), [w], jac=True)
    assert scaled.loss_scale.get_scaled_loss(2.0) == 2048 == 2 * scale.scale


def test_copies_have_a_scale_of_their_own_that_goes_on():
    v = np.ones(2)
    opt = RMSprop(nonfinite="skip", loss_scale=LossScale(8.0, dynamic_growth_steps=3))
    opt.apply_gradients([(np.ones(2), v)])
    opt.apply_gradients([(np.full(2, np.inf), v)])
    opt.apply_gradients([(np.ones(2), v)])
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert (twin.loss_scale.scale, twin.loss_scale.dynamic_counter, twin.skipped) == (4, 1, 1)
        x = twin._state.parameters  # of a pickle, the variables are copies, too
        variable = next(iter(x)).variable.array
        twin.apply_gradients([(np.full(2, np.inf), variable)])
        assert twin.loss_scale.scale == 2
    assert opt.loss_scale.scale == 4
    again = RMSprop.from_config(json.loads(json.dumps(opt.get_config())))
    assert again.loss_scale.get_config() == opt.loss_scale.get_config()
    again.loss_scale.set_weights(opt.loss_scale.get_weights())
    assert (again.loss_scale.scale, again.loss_scale.dynamic_counter) == (4, 1)


def test_iterations_that_are_replaced_keep_the_scale():
    opt, v = scaled_optimizer(), np.ones(2)
    opt.iterations = 5
    opt.apply_gradients([(np.full(2, np.nan), v)])
    assert (opt.iterations, opt.loss_scale.scale) == (5, 2.0**9)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"initial_scale": 0.5}, ValueError),
        ({"initial_scale": np.nan}, ValueError),
        ({"initial_scale": np.inf}, ValueError),
        ({"initial_scale": 2.0**127}, ValueError),
        ({"initial_scale": "8"}, TypeError),
        ({"initial_scale": None}, TypeError),
        ({"initial_scale": [8.0, 8.0]}, TypeError),
        ({"initial_scale": 8j}, TypeError),
        ({"initial_scale": True}, TypeError),
        ({"dynamic_growth_steps": 0}, ValueError),
        ({"dynamic_growth_steps": 2.0}, TypeError),
        ({"dynamic_growth_steps": True}, TypeError),
        ({"dynamic": 1}, TypeError),
    ],
    ids=str,
)
def test_arguments_of_a_scale_are_checked(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        LossScale(**arguments)


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ([2.0], ValueError),
        ([2.0, 1, 1], ValueError),
        ([0.5, 1], ValueError),
        ([np.nan, 1], ValueError),
        ([2.0, -1], ValueError),
        ([2.0, 1.5], TypeError),
        ([2.0, [1, 1]], ValueError),
        (["2", 1], TypeError),
    ],
    ids=str,
)
def test_weights_of_a_scale_are_checked_before_anything_changes(weights, error):
    scale = LossScale(8.0)
    with pytest.raises(error):
        scale.set_weights(weights)
    assert [float(w) for w in scale.get_weights()] == [8, 0]


def test_a_dynamic_scale_needs_steps_that_can_be_left_out_and_an_optimizer_of_its_own():
    for nonfinite in ("propagate", "raise"):
        with pytest.raises(ValueError, match="needs nonfinite='skip'"):
            RMSprop(nonfinite=nonfinite, loss_scale=LossScale())
    opt = scaled_optimizer()
    with pytest.raises(ValueError, match="needs nonfinite='skip'"):
        opt.nonfinite = "raise"
    with pytest.raises(ValueError, match="another optimizer"):
        RMSprop(nonfinite="skip", loss_scale=opt.loss_scale)
    with pytest.raises(TypeError, match=r"rmsprop.LossScale or None; given 8\.0"):
        RMSprop(nonfinite="skip", loss_scale=8.0)
    opt.loss_scale = opt.loss_scale
    scale, opt.loss_scale = opt.loss_scale, None
    opt.nonfinite = "raise"
    RMSprop(nonfinite="skip", loss_scale=scale)
