"""Bad arguments of minimize: a clear error, and nothing changed."""

import numpy as np
import pytest

from rmsprop import RMSprop, Variable, minimize

X0 = {"a": np.ones(2), "b": [np.ones(3)]}


def loss(x):
    return 0.0, {"a": x["a"], "b": x["b"]}


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"x0": "text"}, TypeError, "x0 must be an array, .* '0' of it is a str"),
        ({"x0": {"a": None}}, TypeError, "'a' of it is a NoneType"),
        ({"x0": []}, ValueError, "x0 must have at least one array"),
        ({"x0": [[1.0], [1.0, 2.0]]}, ValueError, "lists of different lengths"),
        ({"x0": np.array(["a"])}, TypeError, "can't be optimised"),
        ({"x0": np.array([True])}, TypeError, "can't be optimised"),
        ({"x0": np.ma.ones(2)}, TypeError, "MaskedArray"),
        ({"fun": 3}, TypeError, "fun must be a function; given 3"),
        ({"jac": "2-point"}, TypeError, "jac must be True .* given '2-point'"),
        ({"callback": 3}, TypeError, "callback must be a function or None"),
        ({"steps": 0}, ValueError, "steps must be at least 1"),
        ({"steps": 1.5}, TypeError, "steps must be a whole number"),
        ({"epochs": 2}, ValueError, "epochs are passes through batches, of which there are none"),
        ({"batches": [1], "epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"batches": iter([1]), "epochs": 2}, ValueError, "batches is an iterator, which ends after one epoch"),
        ({"batches": 3}, TypeError, "batches must be an iterable"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"tol": 1.0, "patience": 0}, ValueError, "patience must be at least 1"),
        ({"max_seconds": "1"}, TypeError, "max_seconds"),
        ({"keep_best": 1}, TypeError, "keep_best must be True or False"),
        ({"overwrite_x0": None}, TypeError, "overwrite_x0 must be True or False"),
        ({"progress": "yes"}, TypeError, "progress must be True or False"),
        ({"check_every": 0}, ValueError, "check_every must be at least 1"),
        ({"checkpoint": "folder"}, TypeError, "checkpoint must be a rmsprop.CheckpointManager or None"),
        (
            {"learning_rate": {"a": 0.1}},
            ValueError,
            r"learning_rate must have the structure of x0, {'a': array, 'b'",
        ),
        ({"learning_rate": {"a": 0.1, "b": ["x"]}}, TypeError, "learning_rate of 'b/0'"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate"),
        ({"rho": 2.0}, ValueError, "rho"),
        ({"optimizer": 3}, TypeError, "optimizer must be a rmsprop.RMSprop"),
        ({"optimizer": RMSprop(), "rho": 0.5}, TypeError, "an optimizer has its own settings; .* given rho"),
        ({"optimizer": RMSprop(), "learning_rate": 0.5}, TypeError, "given learning_rate"),
        ({"maximize": True}, ValueError, "maximize=True leads away from a minimum"),
        ({"optimizer": RMSprop(maximize=True)}, ValueError, "maximize=True"),
        ({"nonsense": 1}, TypeError, "no argument 'nonsense'"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_bad_arguments_are_refused_before_anything_is_evaluated(given, error, words):
    def fail(x):
        raise AssertionError("it was evaluated")

    given = {"fun": fail, "x0": X0, "jac": True, "overwrite_x0": True, **given}
    with pytest.raises(error, match=words):
        minimize(**given)
    if isinstance(given.get("optimizer"), RMSprop):
        assert not given["optimizer"].get_weights()[1:]
    np.testing.assert_array_equal(X0["a"], 1)


@pytest.mark.parametrize(
    ("result", "error", "words"),
    [
        (1.0, TypeError, r"With jac=True, fun must return \(value, gradients\); it returned a float"),
        ((1.0, X0, X0), TypeError, "it returned a tuple"),
        ((1.0, {"a": np.ones(2)}), ValueError, "the gradients must have the structure of x0"),
        ((1.0, {"a": np.ones(3), "b": [np.ones(3)]}), ValueError, r"shape \(3,\)"),
        ((1.0, {"a": np.ones(2) * 1j, "b": [np.ones(3)]}), TypeError, "complex128"),
        ((1j, X0), TypeError, "the loss is complex"),
        ((np.complex64(1), X0), TypeError, "the loss is complex"),
        ((np.ones(2), X0), TypeError, "the loss must be one number"),
        ((None, X0), TypeError, "the loss must be one number; given None"),
        (("1", X0), TypeError, "the loss must be one number; given '1'"),
        ((1.0, {"a": None, "b": None}), ValueError, "No gradients provided for any variable"),
    ],
    ids=range(11),
)
def test_bad_results_of_fun_are_refused_and_x0_stays(result, error, words):
    with pytest.raises(error, match=words):
        minimize(lambda x: result, X0, jac=True, overwrite_x0=True)
    np.testing.assert_array_equal(X0["a"], 1)


def test_without_jac_a_loss_is_told_if_it_returns_gradients_or_is_of_arrays_that_are_not_differentiated():
    import array_api_strict

    with pytest.raises(TypeError, match=r"fun returned a tuple; if that is \(value, gradients\), pass jac=True"):
        minimize(lambda x: (1.0, x), np.ones(2))
    with pytest.raises(TypeError, match=r"x0 has arrays of array_api_strict. Let fun return \(value, gradients\)"):
        minimize(lambda x: 1.0, array_api_strict.asarray([1.0]))


def test_batches_that_are_empty_are_told():
    with pytest.raises(ValueError, match="batches gave none in epoch 0"):
        minimize(lambda x, _: (0.0, x), np.ones(2), jac=True, batches=[])


def test_a_variable_that_occurs_twice_is_refused():
    v = Variable([1.0])
    with pytest.raises(ValueError, match="is the same as variable 0"):
        minimize(lambda x: (0.0, x), [v, v], jac=True, overwrite_x0=True)
