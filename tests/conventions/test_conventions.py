"""Conventions compute by the formulas of their frameworks, and refuse by name what has no counterpart."""

import inspect
import json
from typing import get_type_hints

import numpy as np
import pytest

from rmsprop import LossScale, RMSprop, Variable, conventions
from rmsprop.conventions.shared import Further, Settings, WithDecay, WithNorms
from rmsprop.schedules import CosineDecay
from rmsprop.settings.checks import SMALLEST_EPSILON

FUNCTIONS = [name for name in conventions.__all__ if not name.startswith("weights_")]
REQUIRED = {"optax": (0.1,), "jax": (0.1,), "tensorflow1": (0.1,), "paddle": (0.1,)}


def made(name, *args, **settings):
    return getattr(conventions, name)(*(args or REQUIRED.get(name, ())), **settings)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


# The formulas, each as its framework writes it, of those that can't be installed beside ours


def tensorflow1(v, gradients, lr, decay, momentum, epsilon, centered):
    ms, mg, mom = 1.0, 0.0, 0.0
    for g in gradients:
        ms = ms + (g * g - ms) * (1 - decay)
        mg = mg + (g - mg) * (1 - decay)
        mom = mom * momentum + lr * g / np.sqrt(ms - centered * mg * mg + epsilon)
        v = v - mom
    return v


def paddle(v, gradients, lr, rho, epsilon, momentum, centered, weight_decay):
    ms, mg, mom = 0.0, 0.0, 0.0
    for g in gradients:
        g = g + weight_decay * v
        ms = rho * ms + (1 - rho) * g * g
        mg = rho * mg + (1 - rho) * g
        mom = momentum * mom + lr / np.sqrt(ms - centered * mg * mg + epsilon) * g
        v = v - mom
    return v


def chainer(v, gradients, lr, alpha, eps, inside):
    ms = 0.0
    for g in gradients:
        ms = ms * alpha + (1 - alpha) * g * g
        v = v - lr * g / (np.sqrt(ms + eps) if inside else np.sqrt(ms) + eps)
    return v


def graves(v, gradients, lr, alpha, momentum, eps, wd=0.0):
    n, a, delta = 0.0, 0.0, 0.0
    for g in gradients:
        g = g + wd * v
        n = n * alpha + (1 - alpha) * g * g
        a = a * alpha + (1 - alpha) * g
        delta = delta * momentum - lr * g / np.sqrt(n - a * a + eps)
        v = v + delta
    return v


def plain(v, gradients, lr, rho, eps, wd=0.0, centered=False):
    quad, lin = 0.0, 0.0
    for g in gradients:
        g = g + wd * v
        quad = rho * quad + (1 - rho) * np.abs(g) ** 2
        lin = rho * lin + (1 - rho) * g
        v = v - lr * g / (np.sqrt(quad - centered * np.abs(lin) ** 2) + eps)
    return v


FORMULAS = [
    ("tensorflow1", (0.05, 0.8, 0.0, 1e-3), lambda v, g: tensorflow1(v, g, 0.05, 0.8, 0.0, 1e-3, False)),
    (
        "tensorflow1",
        (0.05, 0.8, 0.5, 1e-3, False, True),
        lambda v, g: tensorflow1(v, g, 0.05, 0.8, 0.5, 1e-3, True),
    ),
    ("paddle", (0.05,), lambda v, g: paddle(v, g, 0.05, 0.95, 1e-6, 0.0, False, 0.0)),
    ("paddle", (0.05, 0.8, 1e-3, 0.5, True, 0.1), lambda v, g: paddle(v, g, 0.05, 0.8, 1e-3, 0.5, True, 0.1)),
    ("chainer", (), lambda v, g: chainer(v, g, 0.01, 0.99, 1e-8, False)),
    ("chainer", (0.05, 0.8, 1e-3, True), lambda v, g: chainer(v, g, 0.05, 0.8, 1e-3, True)),
    ("chainer_graves", (), lambda v, g: graves(v, g, 1e-4, 0.95, 0.9, 1e-4)),
    ("chainer_graves", (0.05, 0.8, 0.5, 1e-3), lambda v, g: graves(v, g, 0.05, 0.8, 0.5, 1e-3)),
    ("mxnet", (), lambda v, g: plain(v, g, 0.001, 0.9, 1e-8)),
    ("mxnet", (0.05, 0.8, 0.5, 1e-3, True), lambda v, g: graves(v, g, 0.05, 0.8, 0.5, 1e-3)),
    ("bitsandbytes", (), lambda v, g: plain(v, g, 0.01, 0.99, 1e-8)),
    ("bitsandbytes", (0.05, 0.8, 1e-3, 0.1, 0.9), lambda v, g: plain(v, g, 0.05, 0.8, 1e-3, 0.1)),
    ("julia", (), lambda v, g: plain(v, g, 0.001, 0.9, 1e-8)),
]


@pytest.mark.parametrize(("name", "arguments", "formula"), FORMULAS)
def test_steps_are_those_of_the_formula_of_the_framework(name, arguments, formula, rng):
    start, gradients = rng.standard_normal((4, 3)), rng.standard_normal((6, 4, 3))
    optimizer, v = getattr(conventions, name)(*arguments), start.copy()
    for gradient in gradients:
        optimizer.apply_gradients([(gradient, v)])
    np.testing.assert_allclose(v, formula(start, gradients), rtol=0, atol=1e-13)


def test_mxnet_clips_first_and_decays_then(rng):
    start, gradients = rng.standard_normal(5), 3 * rng.standard_normal((6, 5))
    optimizer, v = conventions.mxnet(0.05, 0.8, epsilon=1e-3, wd=0.1, clip_gradient=1.5), start.copy()
    for gradient in gradients:
        optimizer.apply_gradients([(gradient, v)])
    np.testing.assert_allclose(v, plain(start, np.clip(gradients, -1.5, 1.5), 0.05, 0.8, 1e-3, 0.1), atol=1e-13)


@pytest.mark.parametrize("spelling", ["centred", "centered"])
def test_julia_takes_the_modulus_of_complex_gradients(spelling, rng):
    numbers = rng.standard_normal((7, 5)) + 1j * rng.standard_normal((7, 5))
    optimizer, v = conventions.julia(0.05, 0.8, 1e-3, **{spelling: True}), numbers[0].copy()
    for gradient in numbers[1:]:
        optimizer.apply_gradients([(gradient, v)])
    np.testing.assert_allclose(v, plain(numbers[0], numbers[1:], 0.05, 0.8, 1e-3, centered=True), atol=1e-13)


def test_legacy_keras_is_the_optimizer_as_it_is_by_default():
    assert conventions.keras_legacy().get_config() == RMSprop().get_config()
    assert inspect.signature(conventions.keras_legacy).parameters.keys() - {"settings"} == {
        "learning_rate", "rho", "momentum", "epsilon", "centered", "name"
    }  # fmt: skip
    assert conventions.keras_legacy(epsilon=0).epsilon == 1e-7


SIGNATURES = {
    "tensorflow1": "learning_rate, decay=0.9, momentum=0.0, epsilon=1e-10, use_locking=False, centered=False, "
    "name='RMSProp'",
    "paddle": "learning_rate, rho=0.95, epsilon=1e-06, momentum=0.0, centered=False, weight_decay=None, "
    "grad_clip=None, name=None",
    "chainer": "lr=0.01, alpha=0.99, eps=1e-08, eps_inside_sqrt=False",
    "chainer_graves": "lr=0.0001, alpha=0.95, momentum=0.9, eps=0.0001",
    "mxnet": "learning_rate=0.001, rho=0.9, momentum=0.9, epsilon=1e-08, centered=False, clip_weights=None, "
    "use_fused_step=True, wd=0.0, clip_gradient=None",
    "bitsandbytes": "lr=0.01, alpha=0.99, eps=1e-08, weight_decay=0, momentum=0, centered=False, optim_bits=32, "
    "args=None, min_8bit_size=4096, percentile_clipping=100, block_wise=True",
    "julia": "eta=0.001, rho=0.9, epsilon=1e-08, centred=False, centered=False",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_names_order_and_defaults_that_were_read_in_the_source(name):
    parameters = list(inspect.signature(getattr(conventions, name)).parameters.values())[:-1]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert ", ".join(shown) == SIGNATURES[name]


# What all have in common


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_tells_its_formula_and_source_and_says_what_it_is(name):
    text = inspect.getdoc(getattr(conventions, name))
    assert text.startswith("Return the optimizer that computes as ")
    assert name == "keras_legacy" or ("::\n" in text and "Source: ``" in text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_everything_else_that_an_optimizer_takes_can_be_passed_along(name):
    aside = {"global_clipnorm": 2.0} if name != "keras" else {}
    optimizer = made(
        name, lazy=False, state_dtype="bfloat16", nonfinite="skip", loss_scale=LossScale(), validate=True, **aside
    )
    assert type(optimizer) is RMSprop
    assert (optimizer.lazy, optimizer.state_dtype, optimizer.nonfinite) == (False, "bfloat16", "skip")
    assert (optimizer.loss_scale.dynamic, optimizer.validate) == (True, True)
    assert optimizer.global_clipnorm == aside.get("global_clipnorm")


@pytest.mark.parametrize("kind", [Further, WithNorms, Settings, WithDecay])
def test_what_is_typed_as_passed_along_is_what_an_optimizer_takes(kind):
    constructor = inspect.signature(RMSprop).parameters
    assert get_type_hints(kind).keys() <= constructor.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_unknown_or_settled_by_the_convention_is_refused(name):
    with pytest.raises(TypeError, match="learnig_rate"):
        made(name, learnig_rate=0.1)
    default = RMSprop()
    for each in ("epsilon_in_sqrt", "complex_as_real", "momentum_includes_lr", "initial_accumulator"):
        if getattr(made(name), each) != getattr(default, each):
            with pytest.raises(TypeError, match=each):
                made(name, **{each: getattr(default, each)})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_config_makes_the_same_optimizer(name):
    config = made(name).get_config()
    assert RMSprop.from_config(json.loads(json.dumps(config))).get_config() == config


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_learning_rate_may_be_a_schedule_of_this_library_a_variable_or_an_array(name):
    schedule = CosineDecay(0.5, 10)
    assert made(name, schedule).learning_rate is schedule
    assert made(name, Variable(0.25)).current_learning_rate == 0.25
    assert made(name, np.array(0.25)).current_learning_rate == 0.25


@pytest.mark.parametrize("name", ["optax", "jax"])
def test_a_callable_gets_the_number_of_finished_steps_where_it_does_in_the_framework(name):
    counts, x = [], np.ones(2)

    def rate(count):
        counts.append(count)
        return np.float32(0.5) / (1 + count)

    optimizer = made(name, rate)
    for _ in range(3):
        optimizer.apply_gradients([(x, x)])
    assert counts == [0, 1, 2]
    assert optimizer.current_learning_rate == 0.125
    assert repr(rate) in repr(optimizer)


@pytest.mark.parametrize("name", ["torch", "keras", "tensorflow1", "julia"])
def test_a_callable_gets_no_argument_elsewhere(name):
    assert made(name, lambda: 0.25).current_learning_rate == 0.25


def epsilon_name(name):
    return "epsilon" if "epsilon" in inspect.signature(getattr(conventions, name)).parameters else "eps"


WITH_EPSILON = [name for name in FUNCTIONS if name != "keras_legacy"]


@pytest.mark.parametrize("name", WITH_EPSILON)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_epsilon_a_quotient_is_exact_and_that_of_zeros_is_zero(name, dtype):
    optimizer = made(name, **{epsilon_name(name): 0})
    assert optimizer.epsilon == SMALLEST_EPSILON
    x = np.zeros(3, dtype)
    optimizer.apply_gradients([(np.array([0.0, 1e-17, -1e-15], dtype), x)])
    if optimizer.initial_accumulator == 0.0:
        assert x[0] == 0.0
        assert x[1] != 0.0
        np.testing.assert_allclose(x[1], -x[2], rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", WITH_EPSILON)
@pytest.mark.parametrize(
    ("given", "error"), [(None, TypeError), ("1", TypeError), (-1.0, ValueError), (np.nan, ValueError)]
)
def test_an_epsilon_that_is_none_is_refused_by_the_name_that_it_was_given(name, given, error):
    with pytest.raises(error, match=epsilon_name(name)):
        made(name, **{epsilon_name(name): given})


REFUSED = [
    ("torch", {"differentiable": True}, "rmsprop.functional"),
    ("timm", {"caution": True}, "leave it out"),
    ("timm", {"corrected_weight_decay": True}, "weight_decay"),
    ("bitsandbytes", {"centered": True}, "conventions.torch"),
    ("bitsandbytes", {"optim_bits": 8}, "state_dtype='uint8'"),
    ("bitsandbytes", {"percentile_clipping": 5}, "clipnorm"),
    ("paddle", {"grad_clip": object()}, "global_clipnorm"),
    ("mxnet", {"clip_weights": 1.0}, "constraint"),
    ("keras", {"clipnorm": 1.0, "clipvalue": 1.0}, "at most one"),
]


@pytest.mark.parametrize(("name", "arguments", "instead"), REFUSED)
def test_what_has_no_counterpart_is_refused_with_what_to_write_instead(name, arguments, instead):
    with pytest.raises(ValueError, match=instead) as caught:
        made(name, **arguments)
    assert next(iter(arguments)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("torch", {"capturable": True, "foreach": True, "differentiable": False}),
        ("timm", {"foreach": False}),
        ("bitsandbytes", {"args": {}, "min_8bit_size": 1, "block_wise": False, "momentum": 0.9}),
        ("tensorflow1", {"use_locking": True}),
        ("mxnet", {"use_fused_step": False}),
        ("keras", {"clipnorm": 0.0, "ema_momentum": 0.5, "ema_overwrite_frequency": 3, "loss_scale_factor": 1.0}),
    ],
)
def test_what_changes_no_result_is_accepted(name, arguments):
    assert made(name, **arguments).get_config() == made(name).get_config()


def test_a_momentum_of_zero_in_optax_remembers_steps_as_there():
    x, y, gradient = np.ones(2), np.ones(2), np.array([1.0, -3.0])
    plain, remembering = conventions.optax(0.1), conventions.optax(0.1, momentum=0.0)
    for _ in range(3):
        plain.apply_gradients([(gradient, x)])
        remembering.apply_gradients([(gradient, y)])
        assert x.tolist() == y.tolist()
    assert (plain.get_slot_names(), remembering.get_slot_names()) == (["rms"], ["rms", "momentum"])


def test_averages_and_accumulation_of_keras_are_those_of_the_optimizer():
    optimizer = conventions.keras(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    assert (optimizer.use_ema, optimizer.ema_momentum, optimizer.ema_overwrite_frequency) == (True, 0.5, 3)
    assert conventions.keras(gradient_accumulation_steps=4).accumulate == 4


def test_a_constant_loss_scale_of_keras_divides_gradients():
    x, y = np.ones(2), np.ones(2)
    conventions.keras(0.25, clipnorm=1.0).apply_gradients([(np.array([3.0, 4.0]), x)])
    conventions.keras(0.25, clipnorm=1.0, loss_scale_factor=64.0).apply_gradients([(np.array([192.0, 256.0]), y)])
    assert x.tolist() == y.tolist()
