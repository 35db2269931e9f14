"""Steps as pure functions: the numbers of the class, in any library, and inside of transformations."""

from functools import partial

import array_api_strict
import numpy as np
import pytest

from rmsprop import IndexedSlices, LossScale, RMSprop, conventions, functional, schedules
from rmsprop.testing.backend_tests import OPTIONS, VARIANTS

SETTINGS = [
    *VARIANTS,
    *OPTIONS,
    {"clipnorm": 0.5},
    {"global_clipnorm": 0.5, "momentum": 0.9, "nesterov": True},
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    {"nonfinite": "skip", "learning_rate": schedules.ExponentialDecay(0.1, 2, 0.5), "decay": 0.1},
]
TRACED = [s for s in SETTINGS if "decay" not in s]


def drawn(dtype, seed):
    rng = np.random.default_rng(seed)

    def one(shape):
        numbers = rng.standard_normal(shape) + 1j * rng.standard_normal(shape) * (np.dtype(dtype).kind == "c")
        return np.asarray(numbers if np.dtype(dtype).kind == "c" else np.real(numbers)).astype(dtype)

    return {"b": [one(()), (one(4), one((0,)))], "a": one((3, 2))}


def flat(tree):
    return [tree["b"][0], *tree["b"][1], tree["a"]]


def mapped(function, tree):
    return {"b": [function(tree["b"][0]), tuple(map(function, tree["b"][1]))], "a": function(tree["a"])}


def optimizer(settings):
    return RMSprop(**{"learning_rate": 0.05, **settings})


def steps(settings, dtype, count=4, spoilt=None):
    """Return the gradients of some steps, and the values after each, as the class has them."""
    params, opt = mapped(np.array, drawn(dtype, 0)), optimizer(settings)
    gradients = [drawn(dtype, seed) for seed in range(1, count + 1)]
    if spoilt is not None:
        gradients[spoilt]["a"][0, 0] = np.nan
    values = []
    for gradient in gradients:
        opt.apply_gradients(zip(flat(gradient), flat(params), strict=True))
        values.append([v.copy() for v in flat(params)])
    return gradients, values


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_on_numpy_the_bits_are_those_of_the_class(settings, dtype):
    params, opt = drawn(dtype, 0), optimizer(settings)
    before = mapped(np.array, params)
    state, given = functional.init(opt, params), params
    for gradient, expected in zip(*steps(settings, dtype), strict=True):
        params, state = functional.update(opt, gradient, state, params)
        for a, b in zip(flat(params), expected, strict=True):
            assert type(a) is np.ndarray
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    assert int(state.count) == 4
    for a, b in zip(flat(given), flat(before), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_any_library_that_follows_the_standard_will_do(settings):
    asarray = array_api_strict.asarray
    params, opt = mapped(asarray, drawn("float64", 0)), optimizer(settings)
    state = functional.init(opt, params)
    for gradient, expected in zip(*steps(settings, "float64"), strict=True):
        params, state = functional.update(opt, mapped(asarray, gradient), state, params)
        for a, b in zip(flat(params), expected, strict=True):
            np.testing.assert_allclose(np.asarray(a), b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("settings", TRACED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "complex64", "float16", "bfloat16"])
def test_inside_of_jit_and_scan_the_numbers_are_those_of_the_class(settings, dtype):
    jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    jnp = jax.numpy
    exact = "float32" if dtype in ("float16", "bfloat16") else dtype
    gradients, values = steps(settings, exact, count=3)
    opt = optimizer(settings)
    asarray = partial(jnp.asarray, dtype=dtype)
    start = mapped(asarray, drawn(exact, 0))
    stacked = jax.tree.map(lambda *each: jnp.stack([asarray(one) for one in each]), *gradients)

    @jax.jit
    def run(params, stacked):
        def body(carry, gradient):
            params, state = functional.update(opt, gradient, carry[1], carry[0])
            return (params, state), params

        return jax.lax.scan(body, (params, functional.init(opt, params)), stacked)

    (params, state), trajectory = run(start, stacked)
    assert state.count == 3
    tolerance = {"float16": 2e-2, "bfloat16": 2e-1}.get(dtype, 2e-5)
    for a, b in zip(flat(params), values[-1], strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(np.asarray(a, exact), b, rtol=tolerance, atol=tolerance)
    assert flat(trajectory)[3].shape == (3, 3, 2)


def test_the_learning_rate_may_be_traced_and_many_of_them_mapped():
    jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    opt, params = RMSprop(schedules.ExponentialDecay(1.0, 1, 0.5), decay=0.5), jax.numpy.ones(2)
    state = functional.init(opt, params)

    def one(rate):
        return functional.update(opt, params, state, params, rate)[0]

    rates = jax.numpy.asarray([0.1, 0.2, 0.4])
    together = jax.jit(jax.vmap(one))(rates)
    for rate, after in zip((0.1, 0.2, 0.4), together, strict=True):
        expected = RMSprop(rate), np.ones(2, np.float32)
        expected[0].apply_gradients([(np.ones(2, np.float32), expected[1])])
        np.testing.assert_allclose(after, expected[1], rtol=1e-6)
    slope = jax.grad(lambda rate: one(rate).sum())(0.1)
    np.testing.assert_allclose(slope, -2 / np.sqrt(0.1), rtol=1e-5)


def test_a_step_can_be_differentiated_where_epsilon_is_inside_of_the_root():
    jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    opt, params = RMSprop(0.1, epsilon=0.1, epsilon_in_sqrt=True, centered=True), jax.numpy.ones(2)
    state = functional.init(opt, params)

    def after(gradient):
        return functional.update(opt, gradient, state, params)[0][0]

    for given in ([0.0, 0.0], [0.5, 1.0]):
        gradient = jax.numpy.asarray(given)
        slope, h = jax.grad(after)(gradient)[0], 1e-3
        numeric = (
            (after(gradient + jax.numpy.asarray([h, 0.0])) - after(gradient - jax.numpy.asarray([h, 0.0]))) / 2 / h
        )
        np.testing.assert_allclose(slope, numeric, rtol=1e-2)


def test_pytorch_records_a_step_and_differentiates_it():
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    opt, params = RMSprop(0.1, rho=0.5, epsilon=1.0, epsilon_in_sqrt=True), torch.ones(2, dtype=torch.float64)
    gradient = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    after, _ = functional.update(opt, gradient, functional.init(opt, params), params)
    after.sum().backward()
    g = np.array([0.5, 2.0])
    np.testing.assert_allclose(gradient.grad, -0.1 / (0.5 * g**2 + 1) ** 1.5, rtol=1e-12)


def test_a_schedule_of_optax_is_followed_while_a_function_is_traced():
    jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    optax = pytest.importorskip("optax", reason="optax is in the extra 'interop'")
    arguments = {"momentum": 0.9, "nesterov": True, "bias_correction": True}
    schedule = optax.exponential_decay(0.1, 2, 0.5)
    theirs, ours = optax.rmsprop(schedule, **arguments), conventions.optax(schedule, **arguments)
    params = twin = jax.numpy.asarray([1.0, -2.0])
    their_state, state = theirs.init(params), functional.init(ours, twin)
    update = jax.jit(partial(functional.update, ours))
    for seed in range(4):
        gradient = jax.numpy.asarray(np.random.default_rng(seed).standard_normal(2), "float32")
        change, their_state = theirs.update(gradient, their_state, params)
        params = optax.apply_updates(params, change)
        twin, state = update(gradient, state, twin)
        np.testing.assert_allclose(twin, params, rtol=1e-5)


@pytest.mark.parametrize("is_traced", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing_if_asked(is_traced):
    jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    settings = {"nonfinite": "skip", "momentum": 0.9, "clipnorm": 1.0}
    gradients, values = steps(settings, "float32", spoilt=1)
    opt, params = optimizer(settings), mapped(jax.numpy.asarray, drawn("float32", 0))
    state, update = functional.init(opt, params), partial(functional.update, opt)
    for gradient, expected in zip(gradients, values, strict=True):
        params, state = (jax.jit(update) if is_traced else update)(gradient_of(jax, gradient), state, params)
        for a, b in zip(flat(params), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    assert state.count == 3


def gradient_of(jax, tree):
    return mapped(jax.numpy.asarray, tree)


def test_none_leaves_a_parameter_and_its_slots_as_they_are():
    opt, params = RMSprop(momentum=0.9), {"a": np.ones(2), "b": (np.ones(1), np.ones(1))}
    state = functional.init(opt, params)
    for grads in ({"a": np.ones(2), "b": None}, {"a": np.ones(2), "b": (None, None)}):
        new, after = functional.update(opt, grads, state, params)
        assert new["b"] == params["b"]
        assert after.rms["b"] == state.rms["b"]
        assert (new["a"] < 1).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"state_dtype": "uint8"}, "state_dtype='uint8'"),
        ({"gradient_transformers": [list]}, "gradient_transformers"),
        ({"gradient_aggregator": list}, "gradient_aggregator"),
        ({"loss_scale": LossScale(dynamic=False)}, "loss_scale"),
        ({"accumulate": 2}, "accumulate=2"),
        ({"nonfinite": "raise"}, "nonfinite='raise'"),
    ],
)
def test_settings_that_need_an_optimizer_with_a_state_are_refused(settings, words):
    opt, params = RMSprop(**settings), np.ones(2)
    with pytest.raises(ValueError, match=words):
        functional.init(opt, params)
    state = functional.init(RMSprop(), params)
    with pytest.raises(ValueError, match=words):
        functional.update(opt, params, state, params)


@pytest.mark.parametrize(
    ("grads", "error", "words"),
    [
        ({"a": np.ones(2)}, ValueError, "grads must have the structure of params, .*'b'.*; given {'a': array}"),
        ({"a": np.ones(2), "b": [np.ones(1)]}, ValueError, "grads must have the structure .*; given .*'b'"),
        ({"a": np.ones(3), "b": [np.ones(1), np.ones(1)]}, ValueError, r"Gradient 0 has shape \(3,\)"),
        ({"a": np.ones(2) * 1j, "b": [np.ones(1), np.ones(1)]}, TypeError, "Gradient 0 has dtype complex128"),
        ({"a": [1.0, 2.0], "b": [np.ones(1), np.ones(1)]}, TypeError, "Gradient 0 must be an array"),
        (
            {"a": IndexedSlices(np.ones(1), np.array([0])), "b": [np.ones(1), np.ones(1)]},
            TypeError,
            "Gradient 0 must be an array",
        ),
    ],
)
def test_what_does_not_fit_the_parameters_is_refused(grads, error, words):
    opt, params = RMSprop(), {"a": np.ones(2), "b": [np.ones(1), np.ones(1)]}
    with pytest.raises(error, match=words):
        functional.update(opt, grads, functional.init(opt, params), params)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ([], ValueError, "at least one array"),
        ([np.ones(1, int)], TypeError, "Parameter 0 must be an array of float16"),
        ([np.ones(1), "b"], TypeError, "Parameter 1 must be an array"),
        ([np.ones(1), array_api_strict.ones(1)], TypeError, "one library"),
    ],
)
def test_parameters_must_be_arrays_of_one_library(params, error, words):
    with pytest.raises(error, match=words):
        functional.init(RMSprop(), params)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": schedules.ExponentialDecay(0.1, 2, 0.5)}, "learning_rate is"),
        ({"learning_rate": lambda: 0.1}, "learning_rate is"),
        ({"momentum": lambda: 0.1}, "momentum is"),
        ({"weight_decay": schedules.ExponentialDecay(0.1, 2, 0.5)}, "weight_decay is"),
        ({"decay": 0.5}, "decay depends on the count"),
    ],
)
def test_what_would_be_read_once_while_a_function_is_traced_is_refused(settings, words):
    jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
    opt, params = RMSprop(**settings), jax.numpy.ones(2)
    state = functional.init(opt, params)
    with pytest.raises(TypeError, match=words):
        jax.jit(partial(functional.update, opt))(params, state, params)


@pytest.mark.parametrize("settings", [{"learning_rate": 1e39}, {"clipvalue": 1e39}, {"clipnorm": 1e-60}], ids=str)
def test_no_number_beyond_a_dtype_lets_a_step_raise_what_numpy_is_asked_to_raise(settings):
    opt, x = RMSprop(**settings), np.ones(3, np.float32)
    found = []
    for reaction in ("ignore", "raise"):
        with np.errstate(all=reaction):
            found.append(functional.update(opt, x, functional.init(opt, x), x)[0].tobytes())
    assert found[0] == found[1]
