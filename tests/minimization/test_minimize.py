"""minimize: the steps of a loop written by hand, in the order and with the counts of SciPy."""

import array_api_strict
import autograd.numpy as anp
import ml_dtypes
import numpy as np
import pytest

import rmsprop
from rmsprop import RMSprop, Variable, minimize, schedules
from rmsprop.variables.nested import flatten

DTYPES = ["float32", "float64", "complex64", "complex128"]


def target(dtype, shape=(3, 4)):
    rng = np.random.default_rng(1)
    values = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if "complex" in dtype else 0)
    return values.astype(dtype)


def distance(x, *others):
    """Return the squared distance to the sum of what is given, and its gradient."""
    wrong = x - sum(others)
    return float(np.sum(np.abs(wrong) ** 2)), 2 * wrong


def tree_distance(x):
    """Return the squared norm of all numbers, with half of the product of the first two arrays."""
    return sum(float(np.sum(np.abs(a) ** 2)) for a in flatten(x)), {
        "probe": 2 * x["probe"],
        "obj": [2 * x["obj"][0], 2 * x["obj"][1]],
    }


def tree():
    return {"probe": target("complex64"), "obj": [target("float32"), target("float64", (2,))]}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True}, {"clipnorm": 0.1}], ids=str)
def test_steps_are_those_of_a_loop_by_hand_to_the_bit(xp, dtype, settings):
    there = xp.asarray(target(dtype))
    x0 = xp.zeros((3, 4), dtype)
    rate = schedules.CosineDecay(0.1, 20)
    x, opt = x0.copy(), RMSprop(rate, **settings)
    losses = []
    for _ in range(20):
        wrong = x - there
        losses.append(float((abs(wrong) ** 2).sum()))
        opt.apply_gradients([(2 * wrong, x)])

    def loss(x):
        wrong = x - there
        return (abs(wrong) ** 2).sum(), 2 * wrong

    result = minimize(loss, x0, jac=True, learning_rate=rate, steps=20, **settings)
    assert (result.x == x).all()
    assert not x0.any()
    assert result.x.dtype == x0.dtype
    np.testing.assert_array_equal(result.history["fun"], losses)
    np.testing.assert_allclose(result.history["learning_rate"], [rate(k) for k in range(20)])
    assert result.fun == float((abs(x - there) ** 2).sum())
    assert type(result.fun) is float


def test_structures_go_through_and_come_back():
    x0 = tree()
    x, opt = tree(), RMSprop(0.01)
    for _ in range(5):
        opt.apply_gradients([(tree_distance(x)[1], x)])
    result = minimize(tree_distance, x0, jac=True, learning_rate=0.01, steps=5)
    for a, b, c in zip(flatten(result.x), flatten(x), flatten(x0), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a is not c
    assert result.x.keys() == x0.keys()
    assert type(result.x["obj"]) is list


def test_the_order_and_the_counts_are_those_of_the_issue():
    events = []

    def loss(x):
        events.append("fun")
        return distance(x, 1.0)

    def callback(intermediate_result):
        events.append(intermediate_result.nit)
        np.testing.assert_array_equal(intermediate_result.fun, distance(intermediate_result.x, 1.0)[0])

    result = minimize(loss, np.zeros(2), jac=True, steps=3, callback=callback)
    assert events == ["fun", "fun", 1, "fun", 2, "fun", 3]
    assert (result.nit, result.nfev, result.status, result.success) == (3, 4, 0, True)
    assert {len(values) for values in result.history.values()} == {3}
    assert result.fun == distance(result.x, 1.0)[0]
    assert int(result.optimizer.iterations) == 3
    assert np.all(np.diff(result.history["seconds"]) >= 0)


def test_with_batches_each_makes_a_step_and_the_loss_is_the_mean_of_the_last_epoch():
    seen, batches = [], [0.0, 1.0, 2.0]

    def callback(intermediate_result):
        seen.append((intermediate_result.nit, intermediate_result.fun))

    result = minimize(distance, np.zeros(2), jac=True, batches=batches, epochs=2, callback=callback)
    x, opt, losses = np.zeros(2), RMSprop(), []
    for batch in batches * 2:
        value, gradient = distance(x, batch)
        losses.append(value)
        opt.apply_gradients([(gradient, x)])
    np.testing.assert_array_equal(result.x, x)
    assert seen == list(enumerate(losses, 1))
    assert (result.nit, result.nfev) == (6, 6)
    assert result.fun == sum(losses[3:]) / 3
    np.testing.assert_array_equal(result.history["fun"], losses)


def test_batches_may_be_a_function_of_the_epoch_and_steps_may_end_them():
    epochs = []

    def batches(epoch):
        epochs.append(epoch)
        return iter([float(epoch), 1.0])

    result = minimize(distance, np.zeros(2), jac=True, batches=batches, epochs=3)
    assert epochs == [0, 1, 2]
    assert result.nit == 6
    result = minimize(distance, np.zeros(2), jac=True, batches=batches, steps=5)
    assert result.nit == 5
    assert result.fun == result.history["fun"][4]
    assert minimize(distance, np.zeros(2), jac=True, batches=iter([1.0, 2.0])).nit == 2


def test_args_come_after_the_batch():
    assert minimize(distance, np.zeros(2), (2.0, 3.0), jac=True, batches=[1.0]).history["fun"][0] == 72.0
    assert minimize(distance, np.zeros(2), 4.0, jac=True, steps=1).history["fun"][0] == 32.0


def test_gradients_come_from_a_function_or_from_a_tape():
    def value(x, there):
        return anp.sum((x - there) ** 2)

    given = minimize(distance, np.zeros(2), (1.0,), jac=True, steps=9)
    by_function = minimize(value, np.zeros(2), (1.0,), jac=lambda x, there: 2 * (x - there), steps=9)
    by_tape = minimize(value, np.zeros(2), (1.0,), steps=9)
    for result in (by_function, by_tape):
        np.testing.assert_array_equal(result.x, given.x)
        np.testing.assert_array_equal(result.history["fun"], given.history["fun"])
    by_tape = minimize(lambda x: anp.sum(x["a"] ** 2) * x["b"][0], {"a": np.ones(2), "b": [np.ones(())]}, steps=1)
    assert by_tape.x["a"][0] < 1
    scaled = rmsprop.LossScale(1024.0)
    assert np.allclose(
        minimize(value, np.zeros(2), (1.0,), steps=9, loss_scale=scaled, nonfinite="skip").x, given.x
    )


def test_tensors_of_pytorch_are_differentiated_by_it():
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    result = minimize(lambda x: ((x - 1) ** 2).sum(), torch.zeros(3, dtype=torch.float64), steps=9)
    np.testing.assert_allclose(result.x.numpy(), minimize(distance, np.zeros(3), 1.0, jac=True, steps=9).x)


def strict(x):
    return array_api_strict.asarray(x)


def jax_array(x):
    return pytest.importorskip("jax.numpy", reason="JAX is in the extra 'interop'").asarray(x)


@pytest.mark.parametrize("asarray", [strict, jax_array])
def test_arrays_of_other_libraries_are_not_changed_and_come_back(asarray):
    x0 = asarray(np.zeros(3, np.float32))

    def loss(x):
        assert type(x) is type(x0)
        return ((x - 1) ** 2).sum() if hasattr(x, "sum") else strict_sum((x - 1) ** 2), 2 * (x - 1)

    def strict_sum(x):
        return array_api_strict.sum(x)

    result = minimize(loss, x0, jac=True, steps=9, keep_best=True, bounds=(None, 0.02))
    expected = minimize(distance, np.zeros(3, np.float32), np.float32(1), jac=True, steps=9, bounds=(None, 0.02))
    assert type(result.x) is type(x0)
    np.testing.assert_allclose(np.asarray(result.x), expected.x, rtol=1e-6)
    assert not np.asarray(x0).any()


def test_variables_come_back_as_variables_with_what_belongs_to_them():
    v = Variable([1.0, 2.0], name="v", constraint=lambda x: np.maximum(x, 0.99))
    fixed = Variable([3.0], trainable=False)
    seen = []

    def loss(x):
        seen.append(type(x["v"]))
        return float(np.sum(x["v"] ** 2)), {"v": 2 * x["v"], "fixed": np.ones(1, np.float32)}

    result = minimize(loss, {"v": v, "fixed": fixed}, jac=True, steps=30, learning_rate=0.1)
    assert result.x["v"].name == "v"
    np.testing.assert_array_equal(result.x["v"].numpy(), np.float32([0.99, 0.99]))
    np.testing.assert_array_equal(result.x["fixed"].numpy(), [3.0])
    np.testing.assert_array_equal(v.numpy(), [1.0, 2.0])
    assert set(seen) == {np.ndarray}


def test_numbers_are_taken_for_arrays():
    assert minimize(distance, [0, 0], 1.0, jac=True, steps=1).x.dtype == float
    assert minimize(distance, [[0.0], [0.0]], 1.0, jac=True, steps=1).x.shape == (2, 1)
    assert minimize(distance, 0.0, 1.0, jac=True, steps=1).x.shape == ()
    assert minimize(distance, np.arange(3), 1.0, jac=True, steps=1).x.dtype == float
    result = minimize(lambda x: (0.0, {"a": x["a"]}), {"a": [1.0, 2.0]}, jac=True, steps=1)
    assert result.x["a"].shape == (2,)


def test_the_arrays_themselves_are_changed_if_that_is_wanted():
    x0 = np.zeros(2)
    result = minimize(distance, x0, 1.0, jac=True, steps=3, overwrite_x0=True)
    assert result.x is x0
    assert x0[0] > 0
    v = Variable([0.0])
    assert minimize(distance, v, np.float32(1), jac=True, steps=3, overwrite_x0=True).x is v
    with pytest.raises(TypeError, match=r"overwrite_x0=True needs arrays that are updated in place.*'0' of x0"):
        minimize(distance, strict(x0), 1.0, jac=True, overwrite_x0=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_optimizer_goes_on_where_it_was(overwrite):
    whole = minimize(distance, np.zeros(2), 1.0, jac=True, steps=10, momentum=0.9)
    half = minimize(distance, np.zeros(2), 1.0, jac=True, steps=5, momentum=0.9)
    given = half.x.copy()
    rest = minimize(distance, half.x, 1.0, jac=True, steps=5, optimizer=half.optimizer, overwrite_x0=overwrite)
    np.testing.assert_array_equal(rest.x, whole.x)
    assert int(rest.optimizer.iterations) == 10
    assert rest.nit == 5
    assert (rest.x is half.x) == overwrite
    assert overwrite or np.array_equal(half.x, given)


def test_the_optimizer_may_follow_any_convention():
    x, opt = np.zeros(2), rmsprop.conventions.torch(lr=0.1)
    for _ in range(5):
        opt.apply_gradients([(2 * (x - 1), x)])
    again = rmsprop.conventions.torch(lr=0.1)
    np.testing.assert_array_equal(minimize(distance, np.zeros(2), 1.0, jac=True, steps=5, optimizer=again).x, x)


def test_each_array_may_have_a_learning_rate_of_its_own():
    x0, rates = tree(), {"probe": 0.01, "obj": [0.12, 0.003]}
    result = minimize(tree_distance, x0, jac=True, learning_rate=rates, steps=4)
    x, opt = tree(), RMSprop(1.0)
    for variable, rate in ((x["probe"], 0.01), (x["obj"][0], 0.12), (x["obj"][1], 0.003)):
        opt.group(variable, lr_mult=rate)
    for _ in range(4):
        opt.apply_gradients([(tree_distance(x)[1], x)])
    for a, b in zip(flatten(result.x), flatten(x), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(result.history["learning_rate"], [[0.12, 0.003, 0.01]] * 4)


def test_gradients_that_are_sparse_or_missing_are_taken():
    def loss(x):
        return 0.0, {"table": rmsprop.IndexedSlices(np.ones((1, 2)), np.array([1])), "rest": None}

    result = minimize(loss, {"table": np.zeros((3, 2)), "rest": np.ones(2)}, jac=True, steps=2)
    np.testing.assert_array_equal(result.x["table"][[0, 2]], 0)
    assert (result.x["table"][1] < 0).all()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_minimised_within_bounds(dtype):
    result = minimize(
        distance, np.zeros(4, dtype), dtype(1), jac=True, learning_rate=0.1, bounds=(0, 0.5), steps=20
    )
    assert result.x.dtype == dtype
    np.testing.assert_array_equal(result.x.astype(float), 0.5)


def test_the_loss_may_be_an_array_of_one_number():
    for wrapped in (np.array, lambda x: np.array([[x]]), np.float32, int):
        result = minimize(lambda x, f=wrapped: (f(np.sum(x)), np.ones(2)), np.ones(2), jac=True, steps=2)
        assert type(result.fun) is float


def test_the_result_is_a_dict_with_attributes_that_prints_as_scipys():
    result = minimize(distance, np.zeros(2), 1.0, jac=True, steps=2)
    assert result["x"] is result.x
    assert {"x", "fun", "nit", "plot"} <= set(dir(result))
    assert " message: All steps have been taken.\n" in repr(result)
    assert "history: a dict of fun (2,), seconds (2,), learning_rate (2,)" in repr(result)
    with pytest.raises(AttributeError, match="hess_inv"):
        _ = result.hess_inv
    result.note = "mine"
    assert result["note"] == "mine"
    del result.note
    assert "note" not in result
    assert dict(result) == result


def test_a_result_can_be_copied_and_pickled():
    import copy
    import pickle

    result = minimize(distance, np.zeros(2), 1.0, jac=True, steps=2)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        np.testing.assert_array_equal(twin.x, result.x)
        more = minimize(distance, twin.x, 1.0, jac=True, steps=2, optimizer=twin.optimizer)
        np.testing.assert_array_equal(more.x, minimize(distance, np.zeros(2), 1.0, jac=True, steps=4).x)


def test_a_result_is_drawn():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    result = minimize(distance, np.zeros(2), 1.0, jac=True, steps=5)
    figure = result.plot()
    top, bottom = figure.axes
    np.testing.assert_array_equal(top.lines[0].get_ydata(), result.history["fun"])
    np.testing.assert_array_equal(bottom.lines[0].get_ydata(), result.history["learning_rate"])
    assert top.get_yscale() == "log"
    plt.close(figure)


def test_a_bar_shows_loss_and_steps(capsys):
    minimize(distance, np.zeros(2), 1.0, jac=True, steps=5, progress=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "loss=" in shown
    assert "step/s" in shown
    minimize(distance, np.zeros(2), jac=True, batches=[1.0, 2.0], epochs=2, progress=True)
    assert "4/4" in capsys.readouterr().err
