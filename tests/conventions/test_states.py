"""State of other frameworks is read with suspicion, and ours is given to what it fits alone."""

from collections import namedtuple
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from rmsprop import RMSprop, conventions
from rmsprop.schedules import CosineDecay

Rms = namedtuple("Rms", ["nu"])  # noqa: PYI024
Stddev = namedtuple("Stddev", ["mu", "nu"])  # noqa: PYI024
Counted = namedtuple("Counted", ["count", "nu"])  # noqa: PYI024
Trace = namedtuple("Trace", ["trace"])  # noqa: PYI024
Schedule = namedtuple("Schedule", ["count"])  # noqa: PYI024


class Injected(NamedTuple):
    hyperparams: dict[str, Any]
    inner_state: Any


def stepped(make, *shapes, dtype=float, **arguments):
    """Return an optimizer with state of some variables, of which no two numbers are the same."""
    optimizer, variables = make(0.1, **arguments), [np.zeros(shape, dtype) for shape in shapes]
    size = iter(range(1, 10**6))
    for _ in range(2):
        pairs = [(np.array([next(size) for _ in range(v.size)], dtype).reshape(v.shape), v) for v in variables]
        optimizer.apply_gradients(pairs)
    return optimizer


def same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert (type(a), a.shape, a.dtype) == (np.ndarray, b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


# torch


def state(**more):
    return {"step": np.float32(3), "square_avg": np.ones(2), **more}


def saved(*states, **group):
    numbered = {i: each for i, each in enumerate(states) if each}
    return {"state": numbered, "param_groups": [{**group, "params": [*range(len(states))]}]}


def test_variables_come_in_the_order_of_groups_and_those_without_state_are_left_out():
    states = {7: state(square_avg=np.full(2, 7.0)), 1: state(square_avg=np.full(3, 1.0)), 4: {}}
    groups = [{"params": [7]}, {"params": [4, 1], "maximize": True}]
    weights = conventions.weights_from_torch({"state": states, "param_groups": groups})
    same(weights, [np.array(3), np.full(2, 7.0), np.full(3, 1.0)])


def test_the_sign_of_the_mean_gradient_is_that_of_its_own_group():
    states = {i: state(grad_avg=np.arange(2.0), momentum_buffer=np.arange(2.0)) for i in range(2)}
    groups = [{"params": [0], "maximize": True}, {"params": [1], "maximize": False}]
    weights = conventions.weights_from_torch({"state": states, "param_groups": groups})
    same(weights[-4:], [np.arange(2.0), np.arange(2.0), -np.arange(2.0), np.arange(2.0)])


def test_steps_are_those_of_the_variable_with_most_and_may_be_missing():
    assert conventions.weights_from_torch(saved(state(), state(step=5)))[0] == 5
    assert conventions.weights_from_torch(saved({"square_avg": np.ones(2)}))[0] == 0


def test_weights_are_copies():
    kept = state(grad_avg=np.ones(2))
    for weight in conventions.weights_from_torch(saved(kept))[1:]:
        weight[...] = 9
    assert kept["square_avg"].tolist() == kept["grad_avg"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("state_dict", "error", "message"),
    [
        (saved(), ValueError, "no step has been taken"),
        (saved({}), ValueError, "no step has been taken"),
        (saved({"step": 1, "exp_avg": np.ones(2)}), ValueError, "exp_avg.*expected square_avg"),
        (saved(state(grad_avg=np.ones(2)), state()), ValueError, "parameter 1 .*square_avg and grad_avg"),
        (saved(state(), state(momentum_buffer=np.ones(2))), ValueError, "parameter 1 .*square_avg"),
        ({"state": {}}, TypeError, "whole state_dict.*state"),
        ({0: state()}, TypeError, "whole state_dict"),
        (7, TypeError, "whole state_dict.*int"),
    ],
)
def test_what_is_no_state_of_rmsprop_in_torch_is_refused(state_dict, error, message):
    with pytest.raises(error, match=message):
        conventions.weights_from_torch(state_dict)


def test_state_goes_to_the_parameters_of_torch_that_have_state_or_to_all():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    optimizer = stepped(conventions.torch, 2, (3, 1))
    rms = optimizer.get_weights()[1:]
    given = conventions.weights_to_torch(optimizer, saved({}, {}))
    same([given["state"][i]["square_avg"].numpy() for i in range(2)], rms)
    given = conventions.weights_to_torch(optimizer, saved(state(), {}, state()))
    same([given["state"][i]["square_avg"].numpy() for i in (0, 2)], rms)
    assert 1 not in given["state"]
    with pytest.raises(ValueError, match="2 variables; the state_dict is of 0"):
        conventions.weights_to_torch(optimizer, saved({}, {}, {}))


@pytest.mark.parametrize(
    ("make", "arguments", "group", "message"),
    [
        (conventions.torch, {"momentum": 0.5}, {}, "momentum of the optimizer is on.* None"),
        (conventions.torch, {}, {"momentum": 0.5}, "momentum of the optimizer is off.* 0.5"),
        (conventions.torch, {"centered": True}, {"centered": False}, "centered of the optimizer is on"),
        (conventions.torch, {"maximize": True}, {}, "maximize of the optimizer is on"),
        (RMSprop, {"momentum": 0.5}, {"momentum": 0.5}, "includes the learning rate, .*conventions.torch"),
        (
            conventions.timm,
            {"momentum": 0.5, "lr_in_momentum": False},
            {"momentum": 0.5, "lr_in_momentum": True},
            "does not include .*conventions.timm",
        ),
    ],
)
def test_state_that_torch_would_take_for_something_else_is_refused(make, arguments, group, message):
    pytest.importorskip("torch", reason="in the extra 'interop'")
    with pytest.raises(ValueError, match=message):
        conventions.weights_to_torch(stepped(make, 2, **arguments), saved({}, **group))


def test_complex_state_that_torch_has_no_form_for_is_refused():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    optimizer = stepped(RMSprop, 2, dtype=complex)
    with pytest.raises(ValueError, match="complex_as_real=True"):
        conventions.weights_to_torch(optimizer, saved({}))


@pytest.mark.parametrize("make", [RMSprop, conventions.timm, conventions.keras])
def test_a_group_of_torch_is_made_of_an_optimizer_that_computes_as_torch_alone(make):
    pytest.importorskip("torch", reason="in the extra 'interop'")
    with pytest.raises(ValueError, match="as conventions.torch makes it"):
        conventions.weights_to_torch(stepped(make, 2))


# optax


def test_dicts_are_read_by_their_sorted_keys_and_lists_in_their_order():
    tree = {"b": [np.array(2.0), (np.array(3.0),)], "a": np.array(1.0), "c": None}
    weights = conventions.weights_from_optax((Stddev(tree, tree), (), Trace(tree)))
    same(weights, list(map(np.array, [0, 1.0, 2.0, 3.0, -1.0, -2.0, -3.0, 1.0, 2.0, 3.0])))


def test_the_count_is_that_of_the_average_or_of_the_schedule():
    nu = [np.ones(2)]
    assert conventions.weights_from_optax((Counted(np.int32(4), nu), Schedule(np.int32(4))))[0] == 4
    assert conventions.weights_from_optax((Rms(nu), Schedule(np.int32(4))))[0] == 4
    assert conventions.weights_from_optax(Injected({"learning_rate": 0.1}, (Rms(nu), ())))[0] == 0


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ((), ValueError, "one field nu"),
        ((Trace([np.ones(2)]),), ValueError, "one field nu"),
        ((Rms([np.ones(2)]), Rms([np.ones(2)])), ValueError, "one field nu.*'nu': 2"),
        ((Counted(3, [np.ones(2)]), Schedule(4)), ValueError, r"differ: \[3, 4\]"),
        (Rms("w"), TypeError, "nu takes an array.*'w'"),
        (Rms({"w": SimpleNamespace()}), TypeError, "nu takes an array.*namespace"),
    ],
)
def test_what_is_no_state_of_rmsprop_in_optax_is_refused(state, error, message):
    with pytest.raises(error, match=message):
        conventions.weights_from_optax(state)


def solver(state):
    return SimpleNamespace(init=lambda params: state)


def test_state_goes_into_the_structure_and_the_dtypes_that_optax_has():
    optimizer = stepped(conventions.optax, 2, (), momentum=0.5, bias_correction=True)
    tree = {"b": (np.zeros((), np.float32),), "a": [np.zeros(2)]}
    template = Injected({}, (Counted(np.zeros((), np.int32), tree), (), Trace(tree)))
    filled = conventions.weights_to_optax(optimizer, solver(template), None)
    (count, nu), nothing, (trace,) = filled.inner_state
    assert (type(filled), nothing, count, count.dtype) == (Injected, (), 2, np.int32)
    _, *slots = optimizer.get_weights()
    same([nu["a"][0], trace["a"][0]], [slots[0], -slots[2]])
    same([nu["b"][0], trace["b"][0]], [slots[1].astype(np.float32), -slots[3].astype(np.float32)])
    assert tree["a"][0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("make", "arguments", "state", "message"),
    [
        (conventions.optax, {}, (Stddev([np.ones(2)], [np.ones(2)]),), "no slot mg, .* a state mu"),
        (conventions.optax, {"momentum": 0.5}, (Rms([np.ones(2)]),), "a slot momentum, .* no state trace"),
        (conventions.optax, {}, (Rms([np.ones(3)]),), r"\[\(2,\)\], those in nu \[\(3,\)\]"),
        (conventions.optax, {}, (Rms([np.ones(2), np.ones(2)]),), "those in nu"),
        (conventions.optax, {}, (), "one field nu"),
        (
            conventions.torch,
            {"momentum": 0.5},
            (Rms([np.ones(2)]), Trace([np.ones(2)])),
            "does not include the learning rate, .*conventions.optax",
        ),
    ],
)
def test_state_that_does_not_fit_optax_is_refused(make, arguments, state, message):
    with pytest.raises(ValueError, match=message):
        conventions.weights_to_optax(stepped(make, 2, **arguments), solver(state), None)


def test_complex_state_that_optax_has_no_form_for_is_refused():
    optimizer = stepped(conventions.optax, 2, dtype=complex, complex_as_real=True)
    with pytest.raises(ValueError, match="complex_as_real=False"):
        conventions.weights_to_optax(optimizer, solver(Rms([np.ones(2, complex)])), None)


# Keras


class KerasVariable(np.ndarray):
    path: str


def variable(path, value=1.0):
    array = np.asarray(value).view(KerasVariable)
    array.path = path
    return array


class NamedVariable(np.ndarray):
    name: str


def named(name, value=1.0):
    array = np.asarray(value).view(NamedVariable)
    array.name = name
    return array


def test_variables_of_keras_are_told_apart_by_their_paths():
    variables = [
        variable("rmsprop/dense_momentum_average_gradient", 4.0),
        variable("rmsprop/learning_rate", 0.1),
        variable("rmsprop/dense_momentum_velocity", 2.0),
        variable("rmsprop/iteration", np.int32(7)),
        variable("rmsprop/dense_momentum_momentum", 3.0),
    ]
    same(conventions.weights_from_keras(variables), [np.array(7), np.array(2.0), np.array(3.0), np.array(4.0)])


def test_variables_of_tf_keras_are_told_apart_by_their_names():
    names = ["iteration:0", "velocity/momentum/kernel:0", "momentum/momentum/kernel:0"]
    variables = [named(name, value) for name, value in zip(names, [np.int64(7), 2.0, 3.0], strict=True)]
    same(conventions.weights_from_keras(variables), [np.array(7), np.array(2.0), np.array(3.0)])


@pytest.mark.parametrize(
    ("variables", "error", "message"),
    [
        ([], ValueError, "that has been built"),
        ([variable("rmsprop/iteration", 0)], ValueError, "that has been built"),
        ([variable("rmsprop/w_velocity")], ValueError, "'iteration': 0"),
        (
            [variable("o/iteration", 0), *map(variable, ["o/v_velocity", "o/w_velocity", "o/v_momentum"])],
            ValueError,
            "'momentum': 1",
        ),
        ([variable("rmsprop/w_variance")], ValueError, "'rmsprop/w_variance' is none of"),
        (
            [*map(variable, ["o/iteration", "o/w_velocity", "o/w_gradient_accumulator"])],
            ValueError,
            "hold accumulated gradients; given gradient_accumulation_steps=None",
        ),
        ([np.ones(2)], TypeError, "with a path or a name"),
    ],
)
def test_what_is_no_state_of_rmsprop_in_keras_is_refused(variables, error, message):
    with pytest.raises(error, match=message):
        conventions.weights_from_keras(variables)


def test_state_for_keras_has_a_learning_rate_if_that_is_a_number():
    optimizer = stepped(conventions.keras, 2, (), momentum=0.5, centered=True)
    count, *slots = optimizer.get_weights()
    same(conventions.weights_to_keras(optimizer), [count, np.array(0.1), *slots])
    optimizer.learning_rate = CosineDecay(0.1, 10)
    same(conventions.weights_to_keras(optimizer), [count, *slots])
    optimizer.learning_rate = lambda: 0.1
    same(conventions.weights_to_keras(optimizer), [count, *slots])


def test_averages_of_the_variables_go_along():
    optimizer = stepped(conventions.keras, 2, (), momentum=0.5, use_ema=True)
    count, *slots = optimizer.get_weights()
    same(conventions.weights_to_keras(optimizer), [count, np.array(0.1), *slots[4:], *slots[:4]])
    paths = [f"rmsprop/{v}_{kind}" for kind in ("average", "velocity", "momentum") for v in ("w", "v")]
    variables = [variable("rmsprop/iteration", count), *map(variable, paths, [*slots[4:], *slots[:4]])]
    same(conventions.weights_from_keras(variables), [count, *slots])


def test_gradients_that_wait_for_a_step_go_along_with_the_number_of_calls():
    x, optimizer = np.zeros(2), conventions.keras(0.1, gradient_accumulation_steps=3)
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        optimizer.apply_gradients([(np.full(2, value), x)])
    count, rms, total, pending = optimizer.get_weights()
    assert (int(count), total.tolist(), int(pending)) == (1, [9.0, 9.0], 2)
    same(conventions.weights_to_keras(optimizer), [np.array(5), np.array(0.1), total, rms])
    paths = ["o/iteration", "o/w_gradient_accumulator", "o/w_velocity"]
    variables = list(map(variable, paths, [np.int32(5), total, rms]))
    same(conventions.weights_from_keras(variables, 3), [count, rms, total, pending])
    with pytest.raises(ValueError, match="hold no accumulated gradients; given gradient_accumulation_steps=3"):
        conventions.weights_from_keras(variables[::2], 3)


def test_gradients_that_wait_for_a_step_are_not_lost_on_the_way_to_others():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    x = np.zeros(2)
    for make in (conventions.torch, conventions.optax):
        optimizer = make(0.1, accumulate=2)
        for message in ("1 calls wait for a step", None, "1 calls wait for a step"):
            optimizer.apply_gradients([(np.ones(2), x)])
            if message is None:
                give(optimizer)
            else:
                with pytest.raises(ValueError, match=message):
                    give(optimizer)


def give(optimizer):
    if optimizer.momentum_includes_lr:
        conventions.weights_to_optax(optimizer, solver(Rms([np.ones(2)])), None)
    else:
        conventions.weights_to_torch(optimizer)


def test_groups_of_variables_are_not_lost_on_the_way_to_torch():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    x, optimizer = np.zeros(2), conventions.torch(0.1)
    optimizer.group([x], lr_mult=0.5)
    optimizer.apply_gradients([(np.ones(2), x)])
    with pytest.raises(ValueError, match="without groups"):
        conventions.weights_to_torch(optimizer)
    conventions.weights_to_torch(optimizer, saved({}))


def test_momentum_in_other_units_than_keras_has_is_refused():
    with pytest.raises(ValueError, match="does not include the learning rate, .*conventions.keras"):
        conventions.weights_to_keras(stepped(conventions.torch, 2, momentum=0.5))


# All


@pytest.mark.parametrize(
    "give",
    [
        lambda optimizer: conventions.weights_to_torch(optimizer, saved({})),
        lambda optimizer: conventions.weights_to_optax(optimizer, solver(Rms([np.ones(2)])), None),
        conventions.weights_to_keras,
    ],
    ids=["torch", "optax", "keras"],
)
def test_an_optimizer_without_state_has_none_to_give(give):
    pytest.importorskip("torch", reason="in the extra 'interop'")
    with pytest.raises(ValueError, match=r"no state yet: call build\(variables\)"):
        give(RMSprop())


def test_slots_of_other_names_stay_behind():
    x, optimizer = np.ones(2), conventions.keras(0.1)
    optimizer.apply_gradients([(x, x)])
    optimizer.add_slot(x, "best")
    assert len(conventions.weights_to_keras(optimizer)) == 3


def test_state_in_smaller_dtypes_is_given_in_full():
    x, optimizer = np.ones(300, np.float32), conventions.keras(0.1, state_dtype="uint8")
    optimizer.apply_gradients([(x, x)])
    same(conventions.weights_to_keras(optimizer)[2:], optimizer.get_weights()[1:])
