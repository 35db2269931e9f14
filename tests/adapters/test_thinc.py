"""The form of thinc: called with each parameter, as its models do."""

import copy
import pickle

import numpy as np
import pytest

from rmsprop import RMSprop
from rmsprop.adapters import ThincRMSprop
from rmsprop.schedules import CosineDecay

KEYS = [(0, "W"), (0, "b"), (1, "W")]


def arrays(seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in [(3, 4), (4,), (4, 2)]]


SETTINGS = [
    {},
    {"rho": 0.5, "momentum": 0.9, "centered": True, "clipnorm": 0.1},
    {"weight_decay": 0.1, "decoupled": True, "bias_correction": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_each_parameter_takes_the_steps_of_an_optimizer(settings, dtype):
    optimizer, ours, plain = ThincRMSprop(0.01, **settings), arrays(0, dtype), arrays(0, dtype)
    expected = [RMSprop(0.01, **settings) for _ in KEYS]
    for step in range(5):
        for key, w, v, g, opt in zip(KEYS, ours, plain, arrays(step + 1, dtype), expected, strict=True):
            opt.apply_gradients([(g.copy(), v)])
            weights, gradient = optimizer(key, w, g)
            assert weights is w
            assert gradient is g
            assert not g.any()
            np.testing.assert_array_equal(w, v)
        optimizer.step_schedules()


def test_a_gradient_that_is_not_finite_is_zeroed_too():
    w, g = np.ones(2, np.float32), np.array([np.nan, 1], np.float32)
    ThincRMSprop(nonfinite="skip")((0, "W"), w, g)
    np.testing.assert_array_equal(w, 1)
    np.testing.assert_array_equal(g, 0)


def test_without_elements_nothing_is_done():
    w, g = np.ones((0, 3), np.float32), np.ones((0, 3), np.float32)
    assert ThincRMSprop()((0, "W"), w, g) == (w, g)


def test_the_state_of_a_parameter_goes_with_its_key_whatever_array_it_comes_in():
    optimizer, w, v, opt = ThincRMSprop(0.1, momentum=0.9), np.ones(4), np.ones(4), RMSprop(0.1, momentum=0.9)
    for step in range(5):
        opt.apply_gradients([(2 * v, v)])
        w, _ = optimizer((0, "W"), w.copy() if step % 2 else w[:], 2 * w)
        np.testing.assert_array_equal(w, v)


def count_down(start=0.4):
    while True:
        yield start
        start /= 2


def of_score(step, *, key, last_score):
    return 0.1 * (step + 1) * (1 if last_score is None else last_score[1]) + (0.01 if key == (0, "b") else 0)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (0.25, [0.25, 0.25, 0.25]),
        ([0.4, 0.2], [0.4, 0.2, 0.2]),
        (count_down(), [0.4, 0.2, 0.1]),
        (CosineDecay(0.1, 2), [0.1, 0.05, 0.0]),
        (of_score, [0.1, 0.2, 0.3]),
    ],
    ids=["number", "list", "iterator", "ours", "callable"],
)
def test_the_learning_rate_follows_any_schedule_of_thinc_or_ours(schedule, rates):
    optimizer, w = ThincRMSprop(schedule), np.ones(1)
    for rate in rates:
        assert optimizer.learn_rate == pytest.approx(rate)
        v, opt = w.copy(), copy.deepcopy(optimizer._optimizers.get(KEYS[0]) or RMSprop())
        opt.rebind([v]) if opt.iterations else None
        opt.learning_rate = optimizer.learn_rate * 0.5
        opt.apply_gradients([(np.ones(1), v)])
        optimizer(KEYS[0], w, np.ones(1), lr_scale=0.5)
        np.testing.assert_array_equal(w, v)
        optimizer.step_schedules()
    assert optimizer.step == len(rates)


def test_a_schedule_is_told_the_key_and_the_last_score_and_the_rate_can_be_set():
    optimizer = ThincRMSprop(of_score)
    optimizer.step_schedules()
    optimizer.last_score = 3.0
    assert optimizer.last_score == (1, 3.0)
    assert optimizer.learn_rate == pytest.approx(0.6)
    assert optimizer._rate_of((0, "b")) == pytest.approx(0.61)
    optimizer.learn_rate = 0.5
    assert optimizer.learn_rate == 0.5


def test_averages_are_those_of_thinc_or_none():
    optimizer, w, average = ThincRMSprop(0.1), np.ones(3, np.float32), np.zeros(3, np.float32)
    for count in range(1, 5):
        optimizer((0, "W"), w, np.ones(3, np.float32))
        average -= (1 - (1 + count) / (10 + count)) * (average - w)
        np.testing.assert_allclose(optimizer.averages[0, "W"], average, rtol=1e-6)
    assert ThincRMSprop(use_averages=False).averages is None


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_by_itself(duplicate):
    optimizer, w = ThincRMSprop(0.1, momentum=0.9), np.ones(3)
    optimizer((0, "W"), w, np.ones(3))
    twin, v = duplicate(optimizer), w.copy()
    for each, x in ((optimizer, w), (twin, v)):
        each((0, "W"), x, np.full(3, 2.0))
    np.testing.assert_array_equal(w, v)
    np.testing.assert_array_equal(optimizer.averages[0, "W"], twin.averages[0, "W"])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"learning_rate": 0.1}, TypeError, "has no learning_rate; expected learn_rate"),
        ({"lr": 0.1}, TypeError, "has no lr; expected learn_rate"),
        ({"global_clipnorm": 1.0}, TypeError, "has no global_clipnorm; expected clipnorm, as thinc"),
        ({"learn_rate": "fast"}, TypeError, "learn_rate must be a number; given 'fast'"),
        ({"learn_rate": []}, ValueError, "learn_rate must have at least one value"),
        ({"learn_rate": np.inf}, ValueError, "learn_rate"),
        ({"use_averages": 1}, TypeError, "use_averages must be True or False"),
        ({"rho": 2.0}, ValueError, "rho"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_bad_arguments_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        ThincRMSprop(**given)


@pytest.mark.parametrize(
    ("weights", "gradient", "error"),
    [
        (np.ones(3), np.ones(2), ValueError),
        (np.ones(3), np.ones(3, complex), TypeError),
        (np.ones(2), np.ones(2), ValueError),
        (np.ones(3, np.float32), np.ones(3, np.float32), (TypeError, ValueError)),
    ],
    ids=["shape", "dtype", "other-shape", "other-dtype"],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(weights, gradient, error):
    optimizer, w, v = ThincRMSprop(0.1), np.ones(3), np.ones(3)
    opt = RMSprop(0.1)
    for _ in range(2):
        optimizer((0, "W"), w, np.ones(3))
        opt.apply_gradients([(np.ones(3), v)])
        with pytest.raises(error):
            optimizer((0, "W"), weights, gradient)
        np.testing.assert_array_equal(weights, 1)
        np.testing.assert_array_equal(gradient, 1)
    np.testing.assert_array_equal(w, v)


@pytest.mark.gpu
def test_on_a_gpu_it_takes_the_same_steps():
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    optimizer, w, on_host, v = ThincRMSprop(0.1), cupy.ones(5), ThincRMSprop(0.1), np.ones(5)
    for _ in range(3):
        optimizer((0, "W"), w, 2 * w)
        on_host((0, "W"), v, 2 * v)
    np.testing.assert_allclose(cupy.asnumpy(w), v, rtol=1e-12)
    np.testing.assert_allclose(cupy.asnumpy(optimizer.averages[0, "W"]), on_host.averages[0, "W"], rtol=1e-12)


@pytest.fixture
def thinc():
    return pytest.importorskip("thinc.api", reason="in the extra 'adapters'")


def trained(thinc, optimizer, epochs=100):
    """Return the loss of a model of thinc before and after it has been trained, and the model."""
    thinc.fix_random_seed(0)
    rng = np.random.default_rng(0)
    model = thinc.chain(thinc.Relu(8), thinc.Linear(1))
    inputs = rng.standard_normal((64, 3)).astype(np.float32)
    outputs = np.abs(inputs.sum(1, keepdims=True))
    model.initialize(X=inputs, Y=outputs)
    losses = []
    for _ in range(epochs):
        predicted, backward = model.begin_update(inputs)
        losses.append(float(np.mean((predicted - outputs) ** 2)))
        backward((predicted - outputs) / len(inputs))
        model.finish_update(optimizer)
        optimizer.step_schedules()
    return losses[0], losses[-1], model


def test_a_model_of_thinc_is_trained_and_its_averages_can_be_used(thinc):
    optimizer = ThincRMSprop(0.01, clipnorm=1.0)
    first, last, model = trained(thinc, optimizer)
    assert last < 0.1 * first
    assert optimizer.averages.keys() == {(node.id, name) for node in model.walk() for name in node.param_names}
    layer = model.layers[-1]
    present = layer.get_param("W").copy()
    with model.use_params(optimizer.averages):
        np.testing.assert_array_equal(layer.get_param("W"), optimizer.averages[layer.id, "W"])
    np.testing.assert_array_equal(layer.get_param("W"), present)


def test_schedules_of_thinc_give_the_learning_rate(thinc):
    schedules = pytest.importorskip("thinc.schedules")
    schedule = schedules.decaying(0.1, 0.5)
    optimizer = ThincRMSprop(schedule)
    rates = []
    for _ in range(3):
        rates.append(optimizer.learn_rate)
        optimizer.step_schedules()
    assert rates[0] > rates[1] > rates[2] > 0
    assert rates[0] == pytest.approx(0.1)
