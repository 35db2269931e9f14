"""Strategies and their scopes, as far as one process shows; `test_mpi.py` has several."""

import copy
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rmsprop
from rmsprop import RMSprop
from rmsprop.distribute import Strategy, steps
from rmsprop.distribute.ranks import Ranks
from rmsprop.distribute.sharding import blocks


@pytest.fixture
def strategy():
    return Strategy()


def test_without_a_scope_nothing_of_it_is_imported():
    code = """
import sys, numpy as np, rmsprop
v = np.ones(2)
rmsprop.RMSprop().apply_gradients([(v, v)])
assert not [name for name in sys.modules if name.startswith("rmsprop.distribute") or name == "mpi4py"]
rmsprop.distribute.get_strategy()
assert "mpi4py" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_example_of_the_page_works_word_for_word():
    tf = rmsprop
    optimizer = tf.RMSprop(learning_rate=0.1)
    vars = [tf.Variable(1.0), tf.Variable([2.0, 3.0])]  # noqa: A001 (as on the page)
    with tf.GradientTape() as tape:
        loss = vars[0] ** 2 + (vars[1] ** 2).sum()
    grads = tape.gradient(loss, vars)
    grads = tf.distribute.get_replica_context().all_reduce("sum", grads)
    # Processing aggregated gradients.
    optimizer.apply_gradients(zip(grads, vars, strict=True), experimental_aggregate_gradients=False)
    np.testing.assert_allclose(vars[0].numpy(), 1 - 0.1 / np.sqrt(0.1), rtol=1e-5)


def test_gradients_can_be_applied_in_run_and_after_the_scope_but_not_across_replicas(strategy):
    v, other = np.ones(2), np.ones(2)
    made_before = RMSprop()
    with strategy.scope():
        opt = RMSprop()
        for each in (opt, made_before):
            with pytest.raises(RuntimeError, match="cross-replica context"):
                each.apply_gradients([(v, v)])
        assert opt.iterations.numpy() == 0
        strategy.run(opt.apply_gradients, args=([(v, v)],))
    opt.apply_gradients([(v, v)])
    made_before.apply_gradients([(other, other)])
    with strategy.scope(), pytest.raises(RuntimeError, match="cross-replica context"):
        made_before.apply_gradients([(other, other)])  # the same list again, which is else replayed
    assert (int(opt.iterations), int(made_before.iterations)) == (2, 1)


def test_scopes_tell_where_one_is(strategy):
    d = rmsprop.distribute
    assert not d.has_strategy()
    assert d.get_strategy().num_replicas_in_sync == 1
    with strategy.scope():
        assert d.has_strategy()
        assert d.get_strategy() is strategy
        assert d.in_cross_replica_context()
        assert d.get_replica_context() is None
        assert strategy.run(lambda: d.get_replica_context().strategy) is strategy
        assert d.in_cross_replica_context()  # again
    assert not d.has_strategy()
    assert strategy.run(lambda a, b: (a, b), args=(1,), kwargs={"b": 2}) == (1, 2)


@pytest.mark.parametrize("given", [list, iter])
def test_a_step_in_a_scope_is_the_step_without(strategy, given):
    settings = {"momentum": 0.9, "global_clipnorm": 0.5, "decay": 0.1}
    with strategy.scope():
        with_replicas = RMSprop(0.1, **settings)
    alone = RMSprop(0.1, **settings)
    a, b = np.arange(4.0), np.arange(4.0)
    for _ in range(5):
        with_replicas.apply_gradients(given([(a + 1, a)]))
        alone.apply_gradients(given([(b + 1, b)]))
    np.testing.assert_array_equal(a, b)


def test_aggregators_transformers_and_constraints_are_applied(strategy):
    v = rmsprop.Variable([1.0, -1.0], constraint=lambda x: np.maximum(x, 0))
    calls = []

    def doubled(name):
        def function(pairs):
            calls.append(name)
            return [(2 * g, w) for g, w in pairs]

        return function

    with strategy.scope():
        opt = RMSprop(gradient_aggregator=doubled("aggregator"), gradient_transformers=[doubled("transformer")])
    opt.apply_gradients([(np.ones(2, np.float32), v)])
    assert calls == ["aggregator", "transformer"]
    np.testing.assert_allclose(opt.get_slot(v, "rms").numpy(), 1.6, rtol=1e-6)
    assert v.numpy()[1] == 0
    opt.apply_gradients([(np.ones(2, np.float32), v)], experimental_aggregate_gradients=False)
    assert calls == ["aggregator", "transformer", "transformer"]


def test_copies_keep_the_strategy_and_pickles_take_that_of_their_scope(strategy):
    with strategy.scope():
        opt = RMSprop()
    v = np.ones(2)
    opt.apply_gradients([(v, v)])
    assert copy.deepcopy(opt)._state.strategy is strategy
    assert pickle.loads(pickle.dumps(opt))._state.strategy is None
    other = Strategy()
    with other.scope():
        again, w = pickle.loads(pickle.dumps((opt, v)))
    assert again._state.strategy is other
    again.apply_gradients([(w, w)])
    assert int(again.iterations) == 2


@pytest.mark.parametrize(
    ("op", "value", "axis", "expected"),
    [
        ("sum", [1, 2.5], None, [1, 2.5]),
        ("MEAN", {"a": np.array([1, 2])}, None, {"a": np.array([1, 2])}),
        ("sum", np.ones((2, 3)), 0, np.full(3, 2.0)),
        (rmsprop.distribute.ReduceOp.MEAN, np.arange(6.0).reshape(2, 3), 1, np.array([1.0, 4.0])),
    ],
)
def test_reduce_keeps_the_structure(strategy, op, value, axis, expected):
    assert repr(strategy.reduce(op, value, axis)) == repr(rmsprop.tapes.recorder.mapped(np.asarray, expected))


def test_reduce_refuses_other_operations_and_what_is_no_number(strategy):
    with pytest.raises(ValueError, match='"sum" or "mean"; given .*max'):
        strategy.reduce("max", 1.0)
    with pytest.raises(TypeError, match="arrays and numbers"):
        strategy.reduce("sum", ["text"])


def test_an_error_leaves_everything_as_it_was(strategy):
    with strategy.scope():
        opt = RMSprop()
    v, w = np.ones(2), np.ones(3)
    with pytest.raises(ValueError, match="shape"):
        opt.apply_gradients([(v, v), (np.ones(4), w)])
    with pytest.raises(ValueError, match="No gradients"):
        opt.apply_gradients([(None, v)])
    assert opt.apply_gradients([]) is None
    assert (v == 1).all()
    assert int(opt.iterations) == 0


@pytest.fixture
def interruptible():
    """Let interrupts be errors, which a shell may have told programs in the background to ignore."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_waits_for_the_end_of_a_step_is_raised_although_the_step_is_refused():
    class Interrupted(Ranks):
        def agree(self, doing, terms):
            if not terms:
                signal.raise_signal(signal.SIGINT)

    v, settings = np.ones(2), RMSprop(nonfinite="raise")._settings
    with pytest.raises(KeyboardInterrupt) as caught:
        steps.take(Interrupted(), False, settings, [(np.array([1, np.nan]), v)], True)
    assert isinstance(caught.value.__context__, FloatingPointError)
    assert (v == 1).all()


@pytest.mark.parametrize("setting", [{"timeout": 0}, {"bucket_bytes": -1}], ids=str)
def test_settings_of_the_strategy_are_checked(setting):
    with pytest.raises(ValueError, match="must be positive"):
        rmsprop.distribute.MPIStrategy(**setting)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_the_blocks_of_a_share_are_all_of_its_elements(shape, data):
    numbers = np.arange(np.prod(shape))
    start = data.draw(st.integers(0, numbers.size))
    stop = data.draw(st.integers(start, numbers.size))
    table = numbers.reshape(shape[0], -1)
    parts = [
        table[b.row : b.row + b.rows, b.column : b.column + b.columns] for b in blocks(tuple(shape), start, stop)
    ]
    np.testing.assert_array_equal(np.concatenate([np.ravel(part) for part in parts] or [[]]), numbers[start:stop])
