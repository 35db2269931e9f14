"""What other frameworks promise of their RMSprop in their own tests, of the conventions of their names."""

import numpy as np
import pytest

from rmsprop import RMSprop, Variable, conventions

OF_TORCH = [
    {},
    {"lr": 1e-3},
    {"weight_decay": 0.1},
    {"maximize": True},
    {"weight_decay": 0.1, "centered": True},
    {"weight_decay": 0.1, "maximize": True},
    {"weight_decay": 0.1, "centered": True, "momentum": 0.1},
    {"weight_decay": 0.1, "centered": True, "momentum": 0.1, "maximize": True},
    {"capturable": True, "foreach": True},
]
OF_OTHERS = [
    ("timm", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "decoupled_decay": True}),
    ("timm", {"lr": 0.01, "momentum": 0.9, "lr_in_momentum": False}),
    ("optax", {"learning_rate": 5e-3}),
    ("optax", {"learning_rate": 5e-3, "momentum": 0.9}),
    ("optax", {"learning_rate": 5e-3, "momentum": 0.9, "nesterov": True, "bias_correction": True}),
    ("keras", {"learning_rate": 0.01, "weight_decay": 0.01, "clipnorm": 1.0}),
    ("chainer", {"lr": 0.01}),
    ("chainer_graves", {"lr": 0.01}),
    ("mxnet", {"learning_rate": 0.01, "wd": 0.01}),
]
ALL = [*[("torch", arguments) for arguments in OF_TORCH], *OF_OTHERS]


def made(name, arguments):
    return getattr(conventions, name)(**arguments)


def fit(optimizer, shape, steps, dtype=float, strides=slice(None)):
    """Fit a linear model of 10 numbers; return the losses. With `maximize`, the loss is turned upside down."""
    rng = np.random.default_rng(29)
    inputs, wanted = rng.standard_normal((5, 10)).astype(dtype), rng.standard_normal(5).astype(dtype)
    weight, bias = rng.standard_normal(shape).astype(dtype)[strides], np.zeros(5, dtype)[::2]
    sign, losses = -1 if optimizer.maximize else 1, []
    for _ in range(steps):
        error = inputs @ weight.reshape(-1)[:10] - wanted
        error[::2] += bias
        losses.append(sign * (abs(error) ** 2).sum())
        gradient = np.zeros(weight.size, dtype)
        gradient[:10] = 2 * sign * inputs.conj().T @ error
        optimizer.apply_gradients([(gradient.reshape(weight.shape), weight), (2 * sign * error[::2], bias)])
    return losses


@pytest.mark.parametrize("strides", [slice(None), slice(None, None, 2)], ids=["contiguous", "strided"])
@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_a_loss_goes_in_the_right_direction(name, arguments, strides):
    losses = fit(made(name, arguments), (20,), 20, strides=strides)
    assert losses[-1] > losses[0] if arguments.get("maximize") else losses[-1] < losses[0]


@pytest.mark.parametrize("arguments", OF_TORCH)
def test_complex_numbers_in_torch_are_pairs_of_reals(arguments):
    rng = np.random.default_rng(31)
    z = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
    pairs = np.stack([z.real, z.imag])
    complex_one, real_one = made("torch", arguments), made("torch", arguments)
    for _ in range(5):
        gradient = rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3))
        complex_one.apply_gradients([(gradient, z)])
        real_one.apply_gradients([(np.stack([gradient.real, gradient.imag]), pairs)])
        np.testing.assert_array_equal(np.stack([z.real, z.imag]), pairs)


@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_a_gradient_of_zero_moves_nothing_but_by_weight_decay(name, arguments):
    still = {key: value for key, value in arguments.items() if key not in ("weight_decay", "wd")}
    x = np.array([3.0, -2.0])
    optimizer = made(name, still)
    for _ in range(3):
        optimizer.apply_gradients([(np.zeros(2), x)])
    assert x.tolist() == [3.0, -2.0]


@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_a_variable_without_gradient_stays_as_it_is(name, arguments):
    x, y = np.array([3.0, -2.0]), np.array([3.0, -2.0])
    made(name, arguments).apply_gradients([(None, x), (np.ones(2), y)])
    assert x.tolist() == [3.0, -2.0]
    assert (y != x).all()


@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_a_rate_in_an_array_or_a_variable_is_that_rate(name, arguments):
    rate = next((key for key in arguments if key in ("lr", "learning_rate")), "lr")
    number = arguments.get(rate, 0.01)
    expected = fit(made(name, arguments), (20,), 5)
    for other in (np.array(number), Variable(number, dtype=float), lambda *count: number):
        assert fit(made(name, arguments | {rate: other}), (20,), 5) == expected


@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_an_optimizer_of_the_same_config_and_weights_goes_on_to_the_bit(name, arguments):
    rng = np.random.default_rng(37)
    x, optimizer = rng.standard_normal(5), made(name, arguments)
    for _ in range(3):
        optimizer.apply_gradients([(rng.standard_normal(5), x)])
    y, again = x.copy(), RMSprop.from_config(optimizer.get_config())
    again.build([y])
    again.set_weights(optimizer.get_weights())
    for _ in range(3):
        gradient = rng.standard_normal(5)
        optimizer.apply_gradients([(gradient, x)])
        again.apply_gradients([(gradient, y)])
        assert x.tobytes() == y.tobytes()


def of_parabola(x):
    return 2 * (x - np.array([1, -1, 1]))


def of_valley(x):
    """Return the gradient of Rosenbrock's function."""
    return np.array([2 * (x[0] - 1) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)])


@pytest.mark.parametrize(
    ("gradient", "start", "end"),
    [(of_parabola, [-1, 10, 1], [1, -1, 1]), (of_valley, [0, 0], [1, 1])],
    ids=["parabola", "Rosenbrock's valley"],
)
@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_a_minimum_is_found_as_in_optax(gradient, start, end, momentum, dtype):
    x, optimizer = np.array(start, dtype), conventions.optax(5e-3, momentum=momentum)
    for _ in range(10_000):
        optimizer.apply_gradients([(gradient(x.real).astype(dtype), x)])
    np.testing.assert_allclose(x, end, rtol=3e-2)


# Keras 3


def test_a_single_step_of_keras():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    conventions.keras(learning_rate=0.5).apply_gradients([(np.array([1.0, 6.0, 7.0, 2.0]), x)])
    np.testing.assert_allclose(x, [-0.5811, 0.4189, 1.4189, 2.4189], atol=1e-4)


def test_five_centered_steps_of_keras():
    x, optimizer = np.ones(10), conventions.keras(centered=True)
    optimizer.apply_gradients([(np.full(10, 0.01), x)])
    for expected in (0.9967, 0.9933, 0.9908, 0.9885, 0.9864):
        np.testing.assert_allclose(x, expected, atol=5e-4)
        optimizer.apply_gradients([(np.arange(0.1, 1.1, 0.1), x)])


def test_weight_decay_of_keras_shrinks_a_variable_that_has_no_slope():
    x = np.array(2.0)
    conventions.keras(learning_rate=1.0, weight_decay=0.004).apply_gradients([(np.array(0.0), x)])
    assert x == 2.0 * (1 - 0.004)


@pytest.mark.parametrize("argument", ["rho", "momentum"])
def test_factors_out_of_range_are_refused_in_keras(argument):
    for value in (-0.1, 1.1, 2.0):
        with pytest.raises(ValueError, match=argument):
            conventions.keras(**{argument: value})
    for value in (0.0, 1.0):
        assert getattr(conventions.keras(**{argument: value}), argument) == value


# Others


def test_a_negative_momentum_or_weight_decay_is_refused_as_in_torch():
    for argument in ("momentum", "weight_decay"):
        with pytest.raises(ValueError, match=argument):
            conventions.torch(**{argument: -1.0})


@pytest.mark.parametrize(
    ("name", "arguments"), [("chainer", {"lr": 0.01}), ("chainer_graves", {"lr": 0.01}), ("mxnet", {})]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_linear_classifier_learns(name, arguments, dtype):
    rng = np.random.default_rng(41)
    direction, weight = rng.standard_normal(10), np.zeros(10, dtype)
    optimizer = made(name, arguments)
    for _ in range(100):
        x = rng.standard_normal((100, 10))
        labels = x @ direction > 0
        chance = 1 / (1 + np.exp(-(x @ weight.astype(float))))
        optimizer.apply_gradients([((x.T @ (chance - labels) / 100).astype(dtype), weight)])
    x = rng.standard_normal((1000, 10))
    assert ((x @ weight > 0) == (x @ direction > 0)).mean() > 0.9
