"""The constructor, the hyperparameters and the configuration of RMSprop."""

import copy
import gc
import json
import pickle
import weakref

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, schedules


def step(optimizer, g=1.0, v=1.0):
    """Return a fresh scalar after one step."""
    variable = np.array(v)
    optimizer.apply_gradients([(np.array(g), variable)])
    optimizer.forget([variable])
    return float(variable)


def test_the_example_of_the_page_gives_its_number():
    opt = RMSprop(learning_rate=0.1)
    var1 = Variable(10.0)
    count = opt.minimize(lambda: (var1**2) / 2.0, [var1])
    assert count.numpy() == 1
    assert str(var1.numpy()) == "9.683772"
    np.testing.assert_allclose(opt.get_weights()[1], 10.000002, rtol=1e-6)


def test_epsilon_is_outside_of_the_root_without_momentum_and_inside_with_it():
    # Values of the reference for lr .1, eps .5, g = v = 1; a callable that returns 0 means momentum.
    assert step(RMSprop(0.1, epsilon=0.5)) == pytest.approx(0.87748516, rel=1e-7)
    assert step(RMSprop(0.1, epsilon=0.5, momentum=lambda: 0.0)) == pytest.approx(0.8709006, rel=1e-7)
    assert step(RMSprop(0.1, epsilon=0.5, momentum=np.array(0.0))) == pytest.approx(0.8709006, rel=1e-7)
    assert step(RMSprop(0.1, epsilon=0.5, epsilon_in_sqrt=True)) == pytest.approx(0.8709006, rel=1e-7)


def test_complex_gradients_count_by_their_modulus():
    v = np.array(1 + 1j)
    opt = RMSprop(0.1)
    opt.apply_gradients([(np.array(3 + 4j), v)])
    np.testing.assert_allclose(v, 1 + 1j - 0.1 * (3 + 4j) / (np.sqrt(2.5) + 1e-7))
    assert opt.get_slot(v, "rms").dtype == np.float64


def test_a_global_phase_makes_no_difference():
    rng = np.random.default_rng(0)
    g = rng.standard_normal((5, 4)) + 1j * rng.standard_normal((5, 4))
    phase = np.exp(0.7j)
    one, two = np.zeros(4, complex), np.zeros(4, complex)
    a, b = (RMSprop(momentum=0.9, centered=True, clipvalue=0.5, clipnorm=0.9) for _ in range(2))
    for row in g:
        a.apply_gradients([(row, one)])
        b.apply_gradients([(row * phase, two)])
    np.testing.assert_allclose(one * phase, two, rtol=1e-12)


def test_complex_as_real_is_the_real_optimizer_on_both_parts():
    rng = np.random.default_rng(0)
    z = np.zeros(4, complex)
    pair = np.zeros((4, 2))
    a, b = RMSprop(momentum=0.9, complex_as_real=True), RMSprop(momentum=0.9)
    for _ in range(3):
        g = rng.standard_normal((4, 2))
        a.apply_gradients([(g.view(complex)[:, 0], z)])
        b.apply_gradients([(g, pair)])
    np.testing.assert_array_equal(z.view(float).reshape(4, 2), pair)


def test_the_learning_rate_may_be_anything_that_gives_a_number():
    calls = []

    def rate():
        calls.append(1)
        return 0.1

    expected = step(RMSprop(0.1))
    for given in (np.float64(0.1), np.array(0.1), Variable(0.1, dtype=np.float64), rate):
        assert step(RMSprop(given)) == expected
    assert step(RMSprop(schedules.PiecewiseConstantDecay([5], [0.1, 9.0]))) == expected
    assert len(calls) == 1


def test_a_callable_is_called_once_per_step_whatever_the_variables():
    calls = []
    opt = RMSprop(lambda: calls.append(1) or 0.1)
    opt.apply_gradients([(np.ones(2, d), np.ones(2, d)) for d in ("f4", "f8", "c8")])
    assert len(calls) == 1


def test_decay_goes_on_from_step_to_step():
    opt, v = RMSprop(1.0, rho=0.0, decay=0.5), np.array([10.0])
    steps = []
    for _ in range(4):
        before = v[0]
        opt.apply_gradients([(np.ones(1), v)])
        steps.append(before - v[0])
    np.testing.assert_allclose(steps, [1, 1 / 1.5, 1 / 2, 1 / 2.5], rtol=1e-6)


def test_decay_composes_with_a_schedule():
    opt = RMSprop(schedules.InverseTimeDecay(1.0, 1, 1.0), decay=0.5)
    rates = []
    for _ in range(4):
        rates.append(opt.current_learning_rate)
        step(opt)
    np.testing.assert_allclose(rates, [1, 1 / 3, 1 / 6, 0.1])


def test_current_learning_rate_is_what_the_next_step_uses():
    opt = RMSprop(schedules.ExponentialDecay(1.0, 1, 0.5), rho=0.0, epsilon=1e-30)
    for expected in (1.0, 0.5, 0.25):
        assert opt.current_learning_rate == expected
        assert 1 - step(opt) == pytest.approx(expected)


def test_hyperparameters_can_be_read_and_assigned_between_steps():
    opt = RMSprop(0.1)
    assert (opt.learning_rate, opt.lr, opt.rho, opt.momentum, opt.epsilon, opt.decay) == (
        0.1,
        0.1,
        0.9,
        0.0,
        1e-7,
        0.0,
    )
    opt.lr = 0.2
    assert opt.learning_rate == opt.current_learning_rate == 0.2
    assert step(opt) == step(RMSprop(0.2))
    opt.rho, opt.epsilon, opt.decay, opt.centered = 0.5, 0.1, 0.25, True
    other = RMSprop(0.2, rho=0.5, epsilon=0.1, decay=0.25, centered=True)
    other.iterations.assign(1)
    assert step(opt) == step(other)


def test_a_callable_shows_its_value_and_a_schedule_itself():
    schedule = schedules.ExponentialDecay(0.1, 10, 0.5)
    opt = RMSprop(schedule, rho=lambda: 0.75)
    assert opt.learning_rate is schedule
    assert opt.rho == 0.75


def test_a_variable_stays_the_learning_rate_and_takes_new_values():
    rate = Variable(0.1)
    opt = RMSprop(rate)
    opt.learning_rate = 0.5
    assert opt.learning_rate is rate
    assert float(rate) == 0.5


def test_momentum_assigned_later_takes_effect():
    opt, v = RMSprop(0.1), np.ones(2)
    opt.apply_gradients([(np.ones(2), v)])
    opt.momentum = 0.9
    opt.apply_gradients([(np.ones(2), v)])
    assert opt.get_slot_names() == ["rms", "momentum"]
    opt.momentum = 0.0  # as in the reference, the formula with momentum stays
    assert opt.get_config()["momentum"] == 0.0
    before = v.copy()
    opt.apply_gradients([(np.ones(2), v)])
    np.testing.assert_allclose(opt.get_slot(v, "momentum").numpy(), before - v)


def test_centered_assigned_later_adds_its_slot():
    opt, v = RMSprop(0.1), np.ones(2)
    opt.apply_gradients([(np.ones(2), v)])
    opt.centered = True
    opt.apply_gradients([(np.ones(2), v)])
    assert opt.get_slot_names() == ["rms", "mg"]


def test_a_config_of_keras_with_numpy_numbers_gives_the_same_formula():
    # After its first step, Keras puts NumPy's float32 into its configuration.
    numbers = {"learning_rate": np.float32(0.1), "rho": np.float32(0.9), "momentum": np.float32(0)}
    opt, v = (
        RMSprop.from_config({"name": "RMSprop", "decay": 0.0, "epsilon": 0.5, "centered": False} | numbers),
        np.ones(1),
    )
    opt.apply_gradients([(np.ones(1), v)])
    assert opt.get_slot_names() == ["rms"]
    assert v[0] == pytest.approx(0.87748516, rel=1e-6)


def test_own_settings_can_be_assigned_too():
    opt, v = RMSprop(0.1, epsilon=0.5), np.ones(1)
    opt.epsilon_in_sqrt = True
    opt.apply_gradients([(np.ones(1), v)])
    assert v[0] == pytest.approx(0.8709006, rel=1e-7)
    opt.lazy = np.bool_(False)
    assert json.dumps(opt.get_config())
    with pytest.raises(ValueError, match="complex_as_real"):
        opt.complex_as_real = True
    for name in ("centered", "lazy", "epsilon_in_sqrt", "complex_as_real"):
        with pytest.raises(TypeError, match=name):
            RMSprop(**{name: "no"})


def test_a_container_of_optimizer_and_variables_can_be_copied_in_any_order():
    class Model:
        pass

    model = Model()
    model.opt, model.w, model.rate = RMSprop(), np.ones(2), Variable(0.5)
    model.opt.learning_rate = model.rate
    model.opt.apply_gradients([(np.ones(2), model.w)])
    twin = copy.deepcopy(model)
    twin.opt.apply_gradients([(np.ones(2), twin.w)])
    assert len(twin.opt.weights) == 2
    twin.rate.assign(0.25)
    assert twin.opt.current_learning_rate == 0.25
    assert model.opt.current_learning_rate == 0.5


@pytest.mark.parametrize("in_order", [lambda opt, v: (opt, v), lambda opt, v: (v, opt), lambda opt, v: [opt, v]])
def test_optimizer_and_variable_copied_in_one_go_belong_together(in_order):
    opt, v = RMSprop(0.1), Variable(np.ones(2), name="v")
    opt.apply_gradients([(np.ones(2), v)])
    twins = copy.deepcopy(in_order(opt, v))
    twin, u = sorted(twins, key=lambda x: isinstance(x, Variable))
    assert u is not v
    assert twin.get_slot(u, "rms").name == "RMSprop/v/rms"


def test_an_optimizer_that_refers_to_itself_can_be_copied():
    opt = RMSprop()
    vars(opt)["me"] = opt
    twin = copy.deepcopy(opt)
    assert twin.me is twin


def test_both_norms_assigned_come_back_from_the_config():
    opt = RMSprop(clipnorm=1.0)
    opt.global_clipnorm = 2.0
    twin = RMSprop.from_config(opt.get_config())
    assert (twin.clipnorm, twin.global_clipnorm) == (1.0, 2.0)


@pytest.mark.parametrize("nothing", [0, 0.0, None])
def test_no_epsilon_means_the_default(nothing):
    assert RMSprop(epsilon=nothing).epsilon == 1e-7


def test_lr_warns_and_wins_over_learning_rate():
    with pytest.warns(UserWarning, match="use `learning_rate` instead") as caught:
        opt = RMSprop(0.5, lr=0.25)
    assert opt.learning_rate == 0.25
    assert caught[0].filename == __file__


BAD_ARGUMENTS = [
    ({"learning_rate": "fast"}, TypeError, "learning_rate"),
    ({"learning_rate": float("nan")}, ValueError, "learning_rate"),
    ({"learning_rate": float("inf")}, ValueError, "learning_rate"),
    ({"learning_rate": np.ones(2)}, TypeError, "learning_rate"),
    ({"learning_rate": 1j}, TypeError, "learning_rate"),
    ({"rho": -0.1}, ValueError, "rho"),
    ({"rho": 10**400}, ValueError, "rho"),
    ({"rho": 2.0}, ValueError, "rho"),
    ({"rho": schedules.ExponentialDecay(0.1, 1, 0.5)}, ValueError, "rho"),
    ({"momentum": 2.5}, ValueError, r"`momentum` must be between \[0, 1\]"),
    ({"momentum": None}, TypeError, "momentum"),
    ({"epsilon": -1.0}, ValueError, "epsilon"),
    ({"epsilon": 1e-50}, ValueError, "epsilon"),
    ({"epsilon": lambda: 1e-7}, TypeError, "epsilon"),
    ({"clipnorm": -1.0}, ValueError, "clipnorm"),
    ({"clipvalue": float("nan")}, ValueError, "clipvalue"),
    ({"global_clipnorm": "1"}, TypeError, "global_clipnorm"),
    (
        {"clipnorm": 1.0, "global_clipnorm": 1.0},
        ValueError,
        "Cannot accept both `clipnorm` and `global_clipnorm`",
    ),
    ({"decay": None}, TypeError, "decay"),
    ({"decay": -1.0}, ValueError, "decay"),
    ({"foo": 1}, TypeError, "foo"),
    ({"amsgrad": True}, TypeError, "amsgrad"),
    ({"nesterov": 1}, TypeError, "nesterov must be True or False"),
    ({"weight_decay": -0.1}, ValueError, "weight_decay"),
    ({"weight_decay": "a"}, TypeError, "weight_decay"),
    ({"rho": schedules.ExponentialDecay(0.1, 1, 0.5)}, ValueError, "only learning_rate and weight_decay can"),
    ({"initial_accumulator": -1}, ValueError, "initial_accumulator"),
    ({"ema_momentum": 1.5}, ValueError, "ema_momentum"),
    ({"ema_overwrite_frequency": 0}, ValueError, "ema_overwrite_frequency"),
    ({"accumulate": 0}, ValueError, "accumulate must be at least 1"),
    ({"accumulate": 1.5}, TypeError, "accumulate must be a whole number"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        RMSprop(**arguments)


def test_clipping_can_be_assigned_and_both_norms_apply_then():
    opt = RMSprop(0.1, clipnorm=1.0, epsilon=1.0)
    opt.global_clipnorm, opt.clipvalue = 0.5, 2.0
    assert (opt.clipnorm, opt.global_clipnorm, opt.clipvalue) == (1.0, 0.5, 2.0)
    assert step(opt, g=5.0) == pytest.approx(step(RMSprop(0.1, epsilon=1.0), g=0.5))
    with pytest.raises(ValueError, match="clipnorm"):
        opt.clipnorm = -1
    assert opt.clipnorm == 1.0


@pytest.mark.parametrize("limit", [{"clipvalue": 1.0}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}], ids=str)
def test_clipping_comes_after_transformers_in_whatever_order_they_are_set(limit):
    def doubled(pairs):
        return [(2 * g, v) for g, v in pairs]

    results = []
    for given in ({"gradient_transformers": [doubled]}, {}):
        v, opt = np.ones(1), RMSprop(0.1, rho=0.0, epsilon=1.0, epsilon_in_sqrt=False, **given)
        for name, value in limit.items():
            setattr(opt, name, value)
        opt.apply_gradients([(np.array([0.75]), v)])
        results.append(v[0])
    assert results == [1 - 0.1 / 2, 1 - 0.1 * 0.75 / 1.75]


def test_aggregator_and_transformers_see_pairs_in_turn():
    def double(pairs):
        return [(2 * g, v) for g, v in pairs]

    def add_one(pairs):
        return [(g + 1, v) for g, v in pairs]

    settings = {"learning_rate": 0.1, "epsilon": 1.0}
    opt = RMSprop(**settings, gradient_aggregator=double, gradient_transformers=[add_one, double])
    assert step(opt, g=1.0) == step(RMSprop(**settings), g=6.0)
    variable = np.array(1.0)
    opt = RMSprop(**settings, gradient_aggregator=double)
    opt.apply_gradients([(np.array(1.0), variable)], experimental_aggregate_gradients=False)
    assert variable == step(RMSprop(**settings), g=1.0)


def test_name_defaults_to_that_of_the_class():
    assert RMSprop().name == RMSprop(name=None).name == "RMSprop"
    assert RMSprop(name="mine").get_config()["name"] == "mine"


def test_config_is_json_and_makes_the_same_optimizer():
    opt = RMSprop(
        schedules.CosineDecay(0.1, 50, alpha=0.1), rho=np.float32(0.5), momentum=lambda: 0.25, epsilon=1e-3,
        centered=True, name="x", clipvalue=1, global_clipnorm=np.float64(2), decay=0.5, lazy=False,
        epsilon_in_sqrt=False, complex_as_real=True,
    )  # fmt: skip
    config = opt.get_config()
    text = json.dumps(config)
    twin = RMSprop.from_config(json.loads(text))
    assert json.dumps(twin.get_config()) == text
    assert list(config) == ["name", "clipvalue", "global_clipnorm", "learning_rate", "decay", "rho", "momentum",
                            "epsilon", "centered", "lazy", "epsilon_in_sqrt", "complex_as_real"]  # fmt: skip
    assert step(opt) == step(twin)


def test_from_config_does_not_change_its_argument():
    config = RMSprop(schedules.ExponentialDecay(0.1, 10, 0.5)).get_config()
    before = copy.deepcopy(config)
    RMSprop.from_config(config)
    RMSprop.from_config({"lr": 0.1})
    assert config == before


class Halving(schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.5**step

    def get_config(self):
        return {}


def test_schedules_of_ones_own_come_back_by_custom_objects():
    config = json.loads(json.dumps(RMSprop(Halving()).get_config()))
    assert isinstance(RMSprop.from_config(config, custom_objects={"Halving": Halving}).lr, Halving)
    with pytest.raises(TypeError, match="Halving"):
        RMSprop.from_config(config)


def test_a_subclass_keeps_its_class_through_its_config():
    class Mine(RMSprop):
        pass

    assert type(Mine.from_config(Mine(0.5).get_config())) is Mine


def trained(settings):
    rng = np.random.default_rng(0)
    variables = [rng.standard_normal((3, 4)), rng.standard_normal(5).astype(np.float32)]
    opt = RMSprop(schedules.ExponentialDecay(0.1, 3, 0.5), **settings)
    for _ in range(3):
        opt.apply_gradients([(rng.standard_normal(v.shape).astype(v.dtype), v) for v in variables])
    return opt, variables


def more_steps(opt, variables):
    rng = np.random.default_rng(1)
    for _ in range(3):
        opt.apply_gradients([(rng.standard_normal(v.shape).astype(v.dtype), v) for v in variables])
    return [w.tobytes() for w in [*variables, *opt.get_weights()]]


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True, "clipnorm": 1.0}])
@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_optimizer_and_variables_copied_together_go_on_alike(settings, copied):
    opt, variables = trained(settings)
    variables_first, twin = copied((variables, opt))
    assert more_steps(twin, variables_first) == more_steps(opt, variables)


def test_a_deep_copy_has_its_own_state_for_the_same_variables():
    opt, variables = trained({"momentum": 0.9})
    twin = copy.deepcopy(opt)
    before = twin.get_weights()
    opt.apply_gradients([(np.ones_like(v), v) for v in variables])
    for a, b in zip(twin.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(twin.weights) == 5
    twin.apply_gradients([(np.ones_like(v), v) for v in variables])
    assert len(twin.weights) == 5


def test_a_pickled_variable_is_recognised_by_the_pickled_optimizer():
    v = Variable([1.0, 2.0], name="v")
    opt = RMSprop()
    opt.apply_gradients([(np.ones(2), v)])
    twin, u = pickle.loads(pickle.dumps((opt, v)))
    assert twin.get_slot(u, "rms").name == "RMSprop/v/rms"
    assert u.name == "v"


def test_an_optimizer_unpickled_from_memory_that_is_read_only_takes_whole_steps():
    opt, buffers, w = RMSprop(), [], np.ones(3)
    opt.apply_gradients([(w, w)])
    data = pickle.dumps(opt, protocol=5, buffer_callback=buffers.append)
    twin = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
    twin.rebind([w])
    assert twin.apply_gradients([(np.ones(3), w)]) == 2


def test_resumed_training_equals_uninterrupted_training():
    opt, variables = trained({"momentum": 0.9, "centered": True})
    again = [v.copy() for v in variables]
    resumed = RMSprop.from_config(json.loads(json.dumps(opt.get_config())))
    resumed.build(again)
    resumed.set_weights(opt.get_weights())
    assert more_steps(resumed, again) == more_steps(opt, variables)


def test_sparse_values_are_clipped_before_duplicates_are_summed():
    # Values of the reference: clipvalue 2 gives the sums [3, 2], clipnorm 1 gives [.91766, .68825].
    gradient = IndexedSlices(np.array([1.0, 3.0, 3.0]), np.array([2, 0, 2]))
    for settings, sums in [({"clipvalue": 2.0}, [2, 0, 3]), ({"clipnorm": 1.0}, [0.68825, 0, 0.91766])]:
        v = np.zeros(3)
        opt = RMSprop(rho=0.0, **settings)
        opt.apply_gradients([(gradient, v)])
        np.testing.assert_allclose(np.sqrt(opt.get_slot(v, "rms").numpy()), sums, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}])
def test_norms_that_are_not_finite_act_as_in_the_reference(settings):
    a, b = np.ones(3), np.ones(3)
    g = np.array([np.inf, 1.0, 0.0])
    RMSprop(0.1, **settings).apply_gradients([(g, a), (np.ones(3), b)])
    if "clipnorm" in settings:
        assert np.isnan(a).tolist() == [True, False, False]
        assert np.isfinite(b).all()
    else:
        assert np.isnan(a).all()
        assert np.isnan(b).all()


def test_a_limit_of_zero_makes_gradients_zero():
    for name in ("clipvalue", "clipnorm", "global_clipnorm"):
        assert step(RMSprop(0.1, **{name: 0.0})) == 1.0
        assert step(RMSprop(0.1, **{name: 0.0}), g=0.0) == 1.0


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("settings", [{"momentum": 0.9, "centered": True}, {"global_clipnorm": 1.0}], ids=str)
def test_slots_are_freed_with_their_optimizer_at_once(xp, settings, count):
    variables = [xp.ones((3, 2), xp.float32) for _ in range(count)]
    opt = RMSprop(**settings)
    for _ in range(2):
        gradients = [xp.ones((3, 2), xp.float32) for _ in variables]
        opt.apply_gradients(zip(gradients, variables, strict=True))
    slots = [weakref.ref(opt.get_slot(v, "rms")) for v in variables]
    was_enabled = gc.isenabled()
    gc.disable()  # which would free them some time later
    del opt
    alive = [slot for slot in slots if slot() is not None]
    if was_enabled:
        gc.enable()
    assert not alive
