"""The frameworks themselves beside the conventions of their names: signatures, steps, and state handed over."""

import importlib
import inspect
import os
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsprop import RMSprop, conventions

SHAPES = [(4, 3), (5,), ()]
STEPS = 4
REASONS = {
    "torch": "PyTorch is in the extra 'interop'",
    "optax": "optax is in the extra 'interop'",
    "jax.example_libraries.optimizers": "JAX is in the extra 'interop'",
    "timm.optim": "timm is in no extra: it is no small install",
    "keras": "Keras is in the extra 'interop'",
}


def imported(name):
    os.environ.setdefault("KERAS_BACKEND", "jax")  # by default, Keras needs TensorFlow
    return pytest.importorskip(name, reason=REASONS.get(name))


def of_autograd():
    """Return autograd's function without what flattens its argument."""
    function = imported("autograd.misc.optimizers").rmsprop
    return next(cell.cell_contents for cell in function.__closure__ if inspect.isfunction(cell.cell_contents))


SIGNATURES = {
    "torch": (lambda: imported("torch").optim.RMSprop, {"params"}),
    "timm": (lambda: imported("timm.optim").RMSpropTF, {"params"}),
    "keras": (lambda: imported("keras").optimizers.RMSprop, {"kwargs"}),
    "optax": (lambda: imported("optax").rmsprop, set()),
    "jax": (lambda: imported("jax.example_libraries.optimizers").rmsprop_momentum, set()),
    "autograd": (of_autograd, {"grad", "x", "callback", "num_iters"}),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_names_order_and_defaults_of_the_framework(name):
    peer, without = SIGNATURES[name]
    theirs = {
        each.name: each.default
        for each in inspect.signature(peer()).parameters.values()
        if each.name not in without
    }
    parameters = inspect.signature(getattr(conventions, name)).parameters.values()
    ours = {each.name: each.default for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD}
    if name == "jax":
        assert (ours.pop("momentum"), theirs.pop("momentum")) == (None, 0.9)  # one function for two
    assert list(ours) == list(theirs)
    assert ours == theirs


# Each class is a peer: it begins with variables, takes steps, and exchanges its state for weights.


class OfTorch:
    def __init__(self, arguments, start):
        self.torch = imported("torch")
        self.parameters = [self.torch.nn.Parameter(self.torch.tensor(v)) for v in start]
        self.optimizer = self.kind()(self.parameters, **arguments)

    def kind(self):
        return self.torch.optim.RMSprop

    def step(self, gradients):
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = self.torch.tensor(gradient)
        self.optimizer.step()
        return [parameter.detach().numpy() for parameter in self.parameters]

    def weights(self):
        return conventions.weights_from_torch(self.optimizer.state_dict())

    def load(self, ours):
        self.optimizer.load_state_dict(conventions.weights_to_torch(ours, self.optimizer.state_dict()))


class OfTimm(OfTorch):
    def kind(self):
        return imported("timm.optim").RMSpropTF


class OfOptax:
    def __init__(self, arguments, start):
        self.optax, numpy = imported("optax"), imported("jax.numpy")
        with in_double_precision():
            self.params = {"ab"[i // 2] + str(i): numpy.asarray(v) for i, v in enumerate(start)}
            self.solver = self.optax.chain(self.optax.identity(), self.optax.rmsprop(**arguments))
            self.state = self.solver.init(self.params)

    def step(self, gradients):
        with in_double_precision():
            tree = dict(zip(self.params, map(np.asarray, gradients), strict=True))
            updates, self.state = self.solver.update(tree, self.state, self.params)
            self.params = self.optax.apply_updates(self.params, updates)
        return [np.asarray(v) for v in self.params.values()]

    def weights(self):
        return conventions.weights_from_optax(self.state)

    def load(self, ours):
        with in_double_precision():
            before = self.state
            self.state = conventions.weights_to_optax(ours, self.solver, self.params)
            leaves = imported("jax").tree.leaves
            assert [(a.dtype, a.shape) for a in leaves(self.state)] == [(a.dtype, a.shape) for a in leaves(before)]


class OfKeras:
    def __init__(self, arguments, start):
        keras = imported("keras")
        if keras.backend.backend() == "jax":
            self.context = in_double_precision
        with self.context():
            self.variables = [keras.Variable(v, dtype="float64") for v in start]
            self.steps = arguments["gradient_accumulation_steps"]
            self.optimizer = keras.optimizers.RMSprop(**arguments)
            self.optimizer.build(self.variables)

    context = nullcontext

    def step(self, gradients):
        keras = imported("keras")
        with self.context():
            tensors = [keras.ops.convert_to_tensor(gradient, "float64") for gradient in gradients]
            self.optimizer.apply(tensors, self.variables)
            return [np.asarray(v) for v in self.variables]

    def weights(self):
        return conventions.weights_from_keras(self.optimizer.variables, self.steps)

    def load(self, ours):
        with self.context():
            self.optimizer.set_weights(conventions.weights_to_keras(ours))


def in_double_precision():
    jax = imported("jax")
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64()  # before JAX 0.8


RATE, RHO = st.floats(1e-3, 0.1), st.floats(0.5, 0.99)
EPSILON, DECAY, MOMENTUM = st.floats(1e-3, 1e-2), st.floats(0.0, 0.2), st.just(0.0) | st.floats(0.3, 0.95)


def single(number):
    return float(np.float32(number))


def arguments_of(**strategies):
    return st.fixed_dictionaries(strategies)


PEERS = {
    "torch": (
        OfTorch,
        arguments_of(
            lr=RATE,
            alpha=RHO,
            eps=EPSILON,
            weight_decay=DECAY,
            momentum=MOMENTUM,
            centered=st.booleans(),
            maximize=st.booleans(),
            foreach=st.sampled_from([None, True, False]),
        ),
    ),
    "timm": (
        OfTimm,
        arguments_of(
            lr=RATE,
            alpha=RHO,
            eps=EPSILON,
            weight_decay=DECAY,
            momentum=MOMENTUM,
            centered=st.booleans(),
            decoupled_decay=st.booleans(),
            lr_in_momentum=st.booleans(),
        ),
    ),
    "optax": (
        OfOptax,
        arguments_of(
            learning_rate=RATE,
            decay=RHO,
            eps=EPSILON,
            initial_scale=st.sampled_from([0.0, 1.0]),
            eps_in_sqrt=st.booleans(),
            centered=st.booleans(),
            momentum=st.none() | MOMENTUM,
            nesterov=st.booleans(),
            bias_correction=st.booleans(),
        ).filter(
            # The first variance is the difference of equal numbers, and of a negative one optax has no root.
            lambda drawn: not (drawn["bias_correction"] and drawn["centered"] and drawn["initial_scale"] == 0.0)
        ),
    ),
    "keras": (
        OfKeras,
        arguments_of(
            # Keras brings these to float32.
            learning_rate=RATE.map(single),
            rho=RHO.map(single),
            epsilon=EPSILON.map(single),
            momentum=MOMENTUM.map(single),
            weight_decay=st.none() | DECAY.map(single),
            centered=st.booleans(),
            use_ema=st.booleans(),
            ema_overwrite_frequency=st.sampled_from([None, 3]),
            gradient_accumulation_steps=st.sampled_from([None, None, 2, 3]),
        ).filter(lambda drawn: not (drawn["use_ema"] and drawn["gradient_accumulation_steps"])),
    ),
}


@pytest.mark.parametrize("name", PEERS)
@settings(max_examples=settings().max_examples // 20)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_steps_are_those_of_the_framework_and_go_on_with_its_state_and_it_with_ours(name, data, seed):
    kind, strategy = PEERS[name]
    arguments, rng = data.draw(strategy), np.random.default_rng(seed)
    start = [rng.standard_normal(shape) for shape in SHAPES]
    gradients = [[rng.standard_normal(shape) for shape in SHAPES] for _ in range(2 * STEPS)]
    theirs, variables = kind(arguments, start), [np.array(v) for v in start]
    ours = getattr(conventions, name)(**arguments)
    for gradient in gradients[:STEPS]:
        reached = theirs.step(gradient)
        assert_close(taken(ours, gradient, variables), reached)
    heir, its_variables = kind(arguments, [np.array(v) for v in variables]), [np.array(v) for v in reached]
    follower = getattr(conventions, name)(**arguments)
    follower.build(its_variables)
    follower.set_weights(theirs.weights())
    if name == "optax" and not arguments["bias_correction"]:
        assert follower.iterations == 0
    heir.load(ours)
    for gradient in gradients[STEPS:]:
        reached = theirs.step(gradient)
        for each in (
            taken(ours, gradient, variables),
            taken(follower, gradient, its_variables),
            heir.step(gradient),
        ):
            assert_close(each, reached)


def taken(optimizer, gradients, variables):
    optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
    return variables


def assert_close(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("function", ["constant", "decayed", "joined"])
def test_a_schedule_of_optax_gets_the_count_and_its_state_goes_on(function):
    optax = imported("optax")
    with in_double_precision():
        schedule = {
            "constant": optax.constant_schedule(0.1),
            "decayed": optax.exponential_decay(0.1, 3, 0.5),
            "joined": optax.join_schedules(
                [optax.linear_schedule(0.0, 0.1, 3), optax.cosine_decay_schedule(0.1, 9)], [3]
            ),
        }[function]
        rng = np.random.default_rng(7)
        start = [rng.standard_normal(shape) for shape in SHAPES]
        theirs, variables = OfOptax({"learning_rate": schedule}, start), [np.array(v) for v in start]
        ours = conventions.optax(schedule)
        for _ in range(5):
            gradients = [rng.standard_normal(shape) for shape in SHAPES]
            reached = theirs.step(gradients)
            for a, b in zip(taken(ours, gradients, variables), reached, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-6)  # optax computes learning rates in single precision
        assert conventions.weights_from_optax(theirs.state)[0] == ours.iterations == 5
        theirs.load(ours)
        assert conventions.weights_from_optax(theirs.state)[0] == 5


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_steps_are_those_of_jax_also_with_its_schedules(momentum):
    optimizers = imported("jax.example_libraries.optimizers")
    with in_double_precision():
        schedule = optimizers.inverse_time_decay(0.25, 2.0, 1.0)
        make = optimizers.rmsprop if momentum is None else optimizers.rmsprop_momentum
        rng = np.random.default_rng(11)
        x = rng.standard_normal(5)
        init, update, get = make(schedule, 0.8, 1e-3, **({} if momentum is None else {"momentum": momentum}))
        state, ours = init(x.copy()), conventions.jax(schedule, 0.8, 1e-3, momentum)
        for i in range(6):
            gradient = rng.standard_normal(5)
            state = update(i, gradient, state)
            assert_close(taken(ours, [gradient], [x]), [np.asarray(get(state))])


def test_steps_are_those_of_autograd():
    optimizers = imported("autograd.misc.optimizers")
    rng = np.random.default_rng(13)
    gradients, start = rng.standard_normal((6, 5)), rng.standard_normal(5)
    expected = optimizers.rmsprop(lambda x, i: gradients[i], start, num_iters=6, step_size=0.2, gamma=0.7)
    ours, x = conventions.autograd(step_size=0.2, gamma=0.7), start.copy()
    for gradient in gradients:
        taken(ours, [gradient], [x])
    np.testing.assert_allclose(x, expected, rtol=1e-13)


@pytest.mark.parametrize("maximize", [False, True])
def test_complex_state_goes_to_torch_and_back(maximize):
    torch = imported("torch")
    rng = np.random.default_rng(17)
    start = rng.standard_normal(5) + 1j * rng.standard_normal(5)
    arguments = {"lr": 0.05, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "maximize": maximize}
    theirs, x = OfTorch(arguments, [start]), start.copy()
    ours = conventions.torch(**arguments)
    for turn in range(6):
        gradient = rng.standard_normal(5) + 1j * rng.standard_normal(5)
        reached = theirs.step([gradient])
        np.testing.assert_allclose(taken(ours, [gradient], [x])[0], reached[0], rtol=1e-12)
        if turn == 2:
            theirs.load(ours)
            weights = theirs.weights()
            assert all((a == b).all() for a, b in zip(weights, ours.get_weights(), strict=True))
            ours = conventions.torch(**arguments)
            ours.build([x])
            ours.set_weights(weights)
    assert torch.is_complex(theirs.parameters[0])


def test_a_state_dict_for_torch_can_be_made_without_one_of_torch():
    torch = imported("torch")
    x, arguments = np.ones(3), {"lr": 0.05, "momentum": 0.5, "centered": True, "weight_decay": 0.1}
    ours = conventions.torch(**arguments)
    taken(ours, [np.arange(3.0)], [x])
    theirs = torch.optim.RMSprop([torch.nn.Parameter(torch.tensor(x))])
    theirs.load_state_dict(conventions.weights_to_torch(ours))
    group = theirs.state_dict()["param_groups"][0]
    assert {name: group[name] for name in arguments} == arguments
    parameter = theirs.param_groups[0]["params"][0]
    parameter.grad = torch.ones(3, dtype=torch.float64)
    theirs.step()
    np.testing.assert_allclose(taken(ours, [np.ones(3)], [x])[0], parameter.detach().numpy(), rtol=1e-14)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_a_config_of_keras_makes_the_optimizer_that_its_convention_makes():
    keras = imported("keras")
    theirs = keras.optimizers.RMSprop(0.25, momentum=0.5, weight_decay=0.125, clipnorm=1.0)
    ours = conventions.keras(0.25, momentum=0.5, weight_decay=0.125, clipnorm=1.0, name=theirs.name)
    assert RMSprop.from_config(theirs.get_config()).get_config() == ours.get_config()


# What differs on purpose, as docs/conventions.md has it


def test_a_variance_below_zero_is_zero_where_that_of_torch_is_not_a_number():
    torch = imported("torch")
    gradient = np.random.default_rng(19).standard_normal(50)
    theirs, x = OfTorch({"lr": 0.1, "alpha": 0.5, "centered": True}, [np.zeros(50)]), np.zeros(50)
    ours = conventions.torch(lr=0.1, alpha=0.5, centered=True)
    for _ in range(60):
        theirs.step([gradient])
        taken(ours, [gradient], [x])
    assert torch.isnan(theirs.parameters[0]).any()
    assert np.isfinite(x).all()


def test_halves_are_computed_in_single_precision_where_those_of_torch_underflow():
    gradient, x = np.full(2, 1e-4, np.float16), np.zeros(2, np.float16)
    assert np.isinf(OfTorch({}, [x]).step([gradient])[0]).all()
    np.testing.assert_allclose(taken(conventions.torch(), [gradient], [x])[0], -0.1, rtol=1e-2)


def test_the_first_step_with_bias_correction_is_finite_where_that_of_optax_is_not():
    arguments = {"learning_rate": 0.1, "centered": True, "bias_correction": True, "eps_in_sqrt": False}
    gradient, x = np.random.default_rng(23).standard_normal(50), np.zeros(50)
    assert np.isnan(OfOptax(arguments, [x]).step([gradient])[0]).any()
    assert np.isfinite(taken(conventions.optax(**arguments), [gradient], [x])[0]).all()
