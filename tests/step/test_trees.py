"""Trees of variables, with alike trees of gradients, wherever variables are taken."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, distribute
from rmsprop.variables.nested import flatten, matched, named, rebuilt


class Layer(NamedTuple):
    weights: Any
    bias: Any


def tree(dtype=float):
    return {
        "b": [np.full(3, 2.0, dtype), Variable([1.0], name="own")],
        "a": Layer(np.ones((2, 2), dtype), np.ones(1, dtype)),
    }


def gradients_of(params):
    values = [0.5 + k + 0 * (x.numpy() if isinstance(x, Variable) else x) for k, x in enumerate(flatten(params))]
    return rebuilt(params, values)


@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.9, "clipnorm": 0.1}, {"accumulate": 2}, {"nonfinite": "skip"}], ids=str
)
@pytest.mark.parametrize("has_strategy", [False, True])
def test_pairs_of_trees_take_the_step_of_the_pairs_in_them(settings, has_strategy):
    def made():
        if not has_strategy:
            return RMSprop(**settings)
        with distribute.Strategy().scope():
            return RMSprop(**settings)

    def step(opt, pairs):
        return (
            distribute.Strategy().run(lambda: opt.apply_gradients(pairs))
            if has_strategy
            else opt.apply_gradients(pairs)
        )

    ours, theirs = tree(), tree()
    opt, other = made(), made()
    for _ in range(4):
        step(opt, [(gradients_of(ours), ours)])
        step(other, list(zip(flatten(gradients_of(theirs)), flatten(theirs), strict=True)))
    for a, b in zip(opt.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(flatten(ours), flatten(theirs), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert int(opt.iterations) == (2 if settings.get("accumulate") else 4)


def test_trees_and_arrays_stand_in_one_list_and_gradients_of_an_array_may_be_a_list_of_numbers():
    x, y, z = np.zeros(2), np.zeros(2), np.zeros((3, 2))
    RMSprop(0.1).apply_gradients(
        [([1.0, 1.0], x), ([[1.0, 1.0], IndexedSlices(np.ones((1, 2)), np.array([1]))], (y, z))]
    )
    assert np.array_equal(x, y)
    assert np.array_equal(z, [[0, 0], x, [0, 0]])


def test_a_none_in_the_place_of_a_branch_leaves_its_variables_as_they_are(caplog):
    params = tree()
    RMSprop(0.1).apply_gradients([({"a": None, "b": gradients_of(params)["b"]}, params)])
    assert params["a"].weights[0, 0] == 1.0
    assert params["b"][0][0] < 2.0
    assert "Gradients do not exist for these variables" in caplog.text


@pytest.mark.parametrize(
    ("grads", "words"),
    [
        ({"a": np.ones(2)}, r"structure of its variables, {'a': array, 'b': \[array\]}; given {'a': array}"),
        ({"a": np.ones(2), "b": np.ones(1)}, "given {'a': array, 'b': array}"),
        ({"a": np.ones(2), "b": [np.ones(1), np.ones(1)]}, "must have the structure"),
        (np.ones(2), "given array"),
        ({"a": np.ones(3), "b": [np.ones(1)]}, r"Gradient of variable 0 .*shape \(3,\)"),
    ],
    ids=range(5),
)
def test_trees_that_differ_are_refused_and_nothing_changes(grads, words):
    params, opt = {"a": np.ones(2), "b": [np.ones(1)]}, RMSprop()
    with pytest.raises(ValueError, match=words):
        opt.apply_gradients([(grads, params)])
    assert int(opt.iterations) == 0
    assert params["a"][0] == 1.0


def test_all_that_takes_variables_takes_the_same_trees_with_names_from_the_keys(tmp_path):
    params, opt = tree(), RMSprop(0.1)
    opt.build(params)
    opt.apply_gradients([(gradients_of(params), params)])
    opt.save(tmp_path / "file", params)
    fresh, again = tree(), RMSprop(0.1)
    again.restore(tmp_path / "file", fresh)
    for a, b in zip(flatten(params), flatten(fresh), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    later = rebuilt(fresh, [x if isinstance(x, Variable) else x.copy() for x in flatten(fresh)])
    del fresh
    again.rebind(later)
    again.apply_gradients([(gradients_of(later), later)])
    distribute.Strategy().check_synced(later)
    assert [name for name, _ in named(params)] == ["a/0", "a/1", "b/0", "b/own"]


def test_a_step_of_trees_is_replayed_as_one_of_pairs(monkeypatch):
    from rmsprop.step import take

    params, opt, planned = tree(), RMSprop(), []
    monkeypatch.setattr(take, "planned", lambda *given, plan=take.planned: planned.append(1) or plan(*given))
    for _ in range(5):
        opt.apply_gradients([(gradients_of(params), params)])
    assert len(planned) < 5


def test_values_are_matched_by_keys_and_positions():
    like = {"x": 1, 1: [2, (3,)]}
    assert matched({1: ["b", ["c"]], "x": "a"}, like) == ["a", "b", "c"]
    assert rebuilt(like, matched(like, like)) == like
    assert matched({1: ["b"], "x": "a"}, like) is None
    assert matched(None, like) == [None] * 3
