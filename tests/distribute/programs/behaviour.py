"""A program for `mpiexec` that checks on each rank what a strategy promises."""

import copy
import functools
import os
import shutil
import tempfile
import time

import array_api_strict
import numpy as np
from mpi4py import MPI

import rmsprop
from rmsprop import IndexedSlices, RMSprop, Variable, Windows
from rmsprop.distribute import MPIStrategy, ReplicaError, get_replica_context, rows


def raised(kind, function, *arguments):
    """Return the message of the error that a function raises."""
    try:
        function(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind} on this rank")


def all_reduce_keeps_structures_and_dtypes(strategy):
    rank, n = strategy.rank, strategy.num_replicas_in_sync
    rows = IndexedSlices(np.full((1, 2), rank + 1.0), np.array([rank]))

    def reduced(op):
        value = {"a": [np.full(3, rank, np.float16), rank], "b": rows, "c": np.ones(2) * 1j}
        return get_replica_context().all_reduce(op, value)

    total, mean = strategy.run(reduced, ("sum",)), strategy.run(reduced, ("mean",))
    assert total["a"][0].dtype == np.float16
    assert total["a"][1] == sum(range(n))
    np.testing.assert_array_equal(total["b"].indices, np.arange(n))
    np.testing.assert_array_equal(total["b"].values[:, 0], np.arange(n) + 1.0)
    np.testing.assert_array_equal(total["c"], [n * 1j] * 2)
    assert mean["a"][1] == sum(range(n)) / n
    assert strategy.reduce("mean", np.arange(rank + 1), axis=0) == sum(r * (r + 1) / 2 for r in range(n)) / sum(
        r + 1 for r in range(n)
    )


def sums_of_one_shape_in_arrays_of_several_kinds_are_kept_apart(strategy):
    with tempfile.NamedTemporaryFile() as file:
        mapped = np.memmap(file, np.float32, "w+", shape=(3,))
        mapped[:] = 5
        values = [np.ones(3, np.float32), array_api_strict.full(3, 3, dtype=array_api_strict.float32), mapped]
        totals = strategy.reduce("sum", values)
    assert [float(total[0]) / strategy.num_replicas_in_sync for total in totals] == [1, 3, 5]


def what_can_not_be_added_up_is_refused(strategy):
    for value in (
        np.array([True]),
        np.array(["text"]),
        np.array([None]),
        np.ma.array([1.0, 2.0], mask=[0, 1]),
        IndexedSlices(np.ones((2, 2)), np.zeros(3, int)),
    ):
        raised((TypeError, ValueError), strategy.reduce, "sum", value)
    x, windows = np.ones((4, 4)), Windows(np.ones((1, 2, 2)), [(0, 0)])
    raised(TypeError, strategy.reduce, "sum", windows)
    with MPIStrategy(shard_state=True).scope():
        sharded = RMSprop()
    assert "shard_state=True it can't be Windows" in raised(TypeError, sharded.apply_gradients, [(windows, x)])
    with strategy.scope():
        opt = RMSprop()
    if strategy.rank == 1:
        windows = Windows(np.ones((1, 2, 1)), [(0, 0)])
    assert "windowed float64 2x1" in raised(ReplicaError, opt.apply_gradients, [(windows, x)])
    assert (x == 1).all()
    swapped = {"b": np.zeros(2), "a": np.ones(2)} if strategy.rank else {"a": np.ones(2), "b": np.zeros(2)}
    assert "rank 1 has the structure" in raised(ReplicaError, strategy.reduce, "sum", swapped)
    assert strategy.reduce("sum", 1) == strategy.num_replicas_in_sync


def the_callers_own_sum_gives_the_same_as_the_strategys(strategy):
    v, w = (Variable([1.0, 2.0]) for _ in range(2))
    with strategy.scope():
        opt, other = RMSprop(0.1), RMSprop(0.1)
    grads = [np.array([strategy.rank + 1.0, 1.0], np.float32)]

    def step():
        summed = get_replica_context().all_reduce("sum", grads)
        opt.apply_gradients(zip(summed, [v], strict=True), experimental_aggregate_gradients=False)
        other.apply_gradients(zip(grads, [w], strict=True))

    strategy.run(step)
    np.testing.assert_array_equal(v.numpy(), w.numpy())


def halves_are_added_up_in_single_precision(strategy):
    n = strategy.num_replicas_in_sync
    with strategy.scope():
        opt = RMSprop(rho=0.0)
    v, table = np.ones(1, np.float16), np.ones((2, 1), np.float16)
    small = np.full(1, 2.0**-24 / n, np.float32)  # of which a half knows nothing, but of their sum
    strategy.run(opt.apply_gradients, ([(small, v), (IndexedSlices(small[:, None], np.array([1])), table)],))
    assert opt.get_slot(v, "rms").numpy()[0] == 2.0**-48
    assert opt.get_slot(table, "rms").numpy()[1, 0] == 2.0**-48


def an_error_on_one_rank_is_one_on_all_after_which_they_can_go_on(strategy):
    v = np.ones(3)
    with strategy.scope():
        opt = RMSprop(0.1)
    opt.apply_gradients([(v, v)])
    before, mine = v.copy(), strategy.rank == 1
    gradient = np.ones(4) if mine else np.ones(3)
    message = raised(ValueError if mine else ReplicaError, strategy.run, opt.apply_gradients, ([(gradient, v)],))
    assert "shape (4,)" in message
    message = raised(ReplicaError, opt.apply_gradients, [(v, v), (np.ones(1), np.ones(1))] if mine else [(v, v)])
    assert "rank 1 has 2 variables; rank 0 has 1 variables" in message
    opt.rho = 0.5 if mine else 0.9
    assert "rho=0.5" in raised(ReplicaError, opt.apply_gradients, [(v, v)])
    opt.rho = 0.9
    assert (v == before).all()
    assert int(opt.iterations) == 1
    opt.apply_gradients([(v, v)])
    strategy.check_synced([v])


def a_constraint_or_a_transformer_that_fails_on_one_rank_undoes_the_step_on_all(strategy):
    def failing(x):
        if strategy.rank == 1:
            raise ZeroDivisionError("not here")
        return x

    v = Variable([1.0, 2.0], constraint=failing)
    with strategy.scope():
        constrained, transformed = RMSprop(0.1), RMSprop(0.1, gradient_transformers=[failing])
    kind = ZeroDivisionError if strategy.rank == 1 else ReplicaError
    w = np.ones(2)
    for opt, variable in ((constrained, v), (transformed, w)):
        before = np.array(variable)
        given = [(np.ones(2, before.dtype), variable)]
        assert "not here" in raised(kind, strategy.run, opt.apply_gradients, (given,))
        np.testing.assert_array_equal(np.array(variable), before)
        np.testing.assert_array_equal(opt.get_slot(variable, "rms").numpy(), 0)
        assert int(opt.iterations) == 0


def variables_begin_with_the_values_of_rank_0_and_differences_are_named(strategy):
    v, w = np.full(2, strategy.rank), np.full((2, 2), float(strategy.rank))
    message = raised(ReplicaError, strategy.check_synced, [np.ones(2), w])
    assert "rank 1 has variable 1 (float64, shape (2, 2))" in message
    strategy.broadcast([v, w])
    strategy.check_synced([v, w])
    assert v[0] == w[0, 0] == 0


def weights_that_rank_0_has_loaded_are_those_of_all(strategy):
    v = np.ones(3)
    with strategy.scope():
        opt = RMSprop(0.1, momentum=0.5)
    opt.build([v])
    for value in (5.0, 7.0):
        if strategy.rank == 0:
            opt.set_weights([opt.iterations.numpy(), np.full(3, value), np.full(3, value)])
        if value == 7.0:
            assert "not seen before" in raised(ReplicaError, opt.apply_gradients, [(v, v)])
            opt.set_weights(opt.get_weights())
        opt.apply_gradients([(v, v)])
        strategy.check_synced([v, *opt.get_weights()])
        assert opt.get_slot(v, "rms").numpy()[0] > 4


def a_copy_of_the_optimizer_goes_on_together(strategy):
    v = np.ones(2)
    with strategy.scope():
        opt = RMSprop(0.1)
    opt.apply_gradients([(v, v)])
    twin = copy.deepcopy(opt)
    twin.apply_gradients([(np.full(2, float(strategy.rank)), v)])
    strategy.check_synced([v, *twin.get_weights()])


def an_array_that_was_replaced_is_noticed_on_all_ranks(strategy):
    for settings in ({}, {"shard_state": True}):
        with MPIStrategy(timeout=30, bucket_bytes=64, **settings).scope():
            opt = RMSprop(0.1)
        x, y = np.ones(200), np.ones((30, 4))
        opt.apply_gradients([(x, x), (y, y)])
        x = x * 2
        message = raised((ValueError, ReplicaError), opt.apply_gradients, [(np.ones(200), x), (y, y)])
        assert "rebind" in message
        opt.rebind([x, y])
        opt.apply_gradients([(np.ones(200), x), (y, y)])
        strategy.check_synced([x, y])
        del x
        opt.forget()
        opt.apply_gradients([(y, y)])
        assert list(opt.get_slot_names()) == ["rms"]
        assert len(opt.weights) == 2


def other_libraries_and_strides_are_reduced_too(strategy):
    import array_api_strict as xp

    n = strategy.num_replicas_in_sync
    with strategy.scope():
        opt = RMSprop(rho=0.0)
    v, w = Variable(xp.ones((2, 2))), np.ones((4, 6))[::2, ::-3]
    gradient = xp.reshape(xp.arange(4, dtype=xp.float64), (2, 2))
    opt.apply_gradients([(gradient, v), (np.arange(4.0).reshape(2, 2).T, w)])
    np.testing.assert_array_equal(opt.get_slot(v, "rms").numpy(), [[0, n**2], [4 * n**2, 9 * n**2]])
    np.testing.assert_array_equal(opt.get_slot(w, "rms").numpy(), [[0, 4 * n**2], [n**2, 9 * n**2]])


def slots_of_smaller_dtypes_are_as_in_one_process(strategy):
    n = strategy.num_replicas_in_sync
    with strategy.scope():
        opt = RMSprop(0.1, state_dtype="uint8")
    alone = RMSprop(0.1, state_dtype="uint8")
    v, w = np.ones(300), np.ones(300)
    for k in range(3):
        gradient = np.random.default_rng(k).standard_normal(300)
        opt.apply_gradients([(gradient * (strategy.rank + 1), v)])
        alone.apply_gradients([(sum(gradient * (rank + 1) for rank in range(n)), w)])
    np.testing.assert_array_equal(v, w)
    np.testing.assert_array_equal(opt.get_weights()[1], alone.get_weights()[1])


def a_sum_that_is_not_finite_is_left_out_on_all_ranks(strategy):
    rank = strategy.rank
    infinite = np.full(40, [np.inf, -np.inf, 1.0][rank])
    large, half = np.full(40, 1e308), np.full(40, 40_000.0, np.float16)
    for options in ({}, {"shard_state": True}):
        careful = MPIStrategy(timeout=30, bucket_bytes=64, **options)
        with careful.scope():
            opt = RMSprop(0.1, nonfinite="skip")
        v, w, h = np.ones(40), np.ones(3), np.ones(40, np.float16)
        good = [(np.ones(40), v), (np.ones(3), w), (np.ones(40, np.float16), h)]
        opt.apply_gradients(good)
        before = [a.tobytes() for a in (v, w, h, *opt.get_weights())]
        rows = IndexedSlices(np.array([np.nan] * (rank == 1)), np.array([2] * (rank == 1), int))
        for bad in ((infinite, v), (large, v), (rows, w), (half, h)):
            opt.apply_gradients([bad if pair[1] is bad[1] else pair for pair in good])
        assert [a.tobytes() for a in (v, w, h, *opt.get_weights())] == before
        assert (opt.skipped, int(opt.iterations)) == (4, 1)
        opt.nonfinite = "raise"
        message = raised(FloatingPointError, careful.run, opt.apply_gradients, ([good[0], (rows, w), good[2]],))
        assert "variable 1" in message
        opt.apply_gradients(good)
        careful.check_synced([v, w, h])


def sharded_state_says_what_it_does_not_take(strategy):
    sharded = MPIStrategy(shard_state=True, timeout=30)
    with sharded.scope():
        opt, compact = RMSprop(), RMSprop(state_dtype="uint8")
    assert "state_dtype" in raised(ValueError, compact.build, [np.ones(3)])
    assert "C order" in raised(ValueError, opt.apply_gradients, [(np.ones((2, 2)), np.ones((2, 2)).T)])
    constrained = Variable([1.0], constraint=abs)
    assert "constraints" in raised(ValueError, opt.build, [constrained])
    v, nothing, one = np.ones(3), np.ones((0, 2)), np.ones(())
    opt.apply_gradients([(v, v), (nothing, nothing), (one, one)])
    assert "get_weights" in raised(TypeError, copy.deepcopy, opt)
    assert opt.get_slot(v, "rms").shape == (3,)
    assert opt.get_slot(v, "rms").own.size < 3


def rank_0_saves_what_all_ranks_restore(strategy):
    folder = tempfile.mkdtemp() if strategy.rank == 0 else ""
    folder = strategy.ranks.link.exchange(folder.encode(), "test")[0].decode()
    path = os.path.join(folder, "checkpoint.safetensors")
    for sharded in (False, True):
        with MPIStrategy(timeout=30, shard_state=sharded).scope():
            opt, again, v, w = (
                RMSprop(0.1, momentum=0.9),
                RMSprop(0.1, momentum=0.9),
                np.ones((5, 3)),
                np.zeros((5, 3)),
            )
        opt.apply_gradients([(np.full((5, 3), strategy.rank + 1.0), v)])
        opt.save(path, [v])
        again.restore(path, [w])
        loaded = RMSprop.load(path)
        for x, y, z in zip(opt.get_weights(), again.get_weights(), loaded.get_weights(), strict=True):
            assert x.tobytes() == y.tobytes() == z.tobytes()
        opt.apply_gradients([(v, v)])
        again.apply_gradients([(w, w)])
        assert v.tobytes() == w.tobytes()
        if strategy.rank == 0:
            again.restore(path, [w])
        again.iterations.assign(1)
        assert "not seen before" in raised(ReplicaError, again.apply_gradients, [(w, w)])
        kind = OSError if strategy.rank == 0 else ReplicaError
        assert "nowhere" in raised(kind, opt.save, os.path.join(folder, "nowhere", "file"), [v])
        assert "wait=False" in raised(ValueError, functools.partial(opt.save, path, wait=False))
        manager = rmsprop.CheckpointManager(os.path.join(folder, str(sharded)), max_to_keep=1)
        if strategy.rank == 1:
            manager._numbered = lambda seen=manager._numbered: (time.sleep(0.2), seen())[1]
        (saved,) = {*strategy.ranks.link.exchange(manager.save(opt, [v]).encode(), "test")}
        assert [saved.decode()] == manager.checkpoints
        manager.save(opt, [v])
        assert len(manager.checkpoints) == 1
        others = {"v": v, "w": np.ones(2, object)} if strategy.rank == 1 else {"v": v}
        assert "object" in raised((TypeError, ReplicaError), opt.save, path, others)
    assert os.listdir(folder).count("checkpoint.safetensors") == 1
    strategy.run(strategy.reduce, ("sum", 1.0))
    if strategy.rank == 0:
        shutil.rmtree(folder)


def main():
    if MPI.COMM_WORLD.size > 2:
        rows.FEW = 2  # so that these are many
    strategy = MPIStrategy(timeout=30, bucket_bytes=64)
    for check in (
        all_reduce_keeps_structures_and_dtypes,
        sums_of_one_shape_in_arrays_of_several_kinds_are_kept_apart,
        what_can_not_be_added_up_is_refused,
        the_callers_own_sum_gives_the_same_as_the_strategys,
        halves_are_added_up_in_single_precision,
        an_error_on_one_rank_is_one_on_all_after_which_they_can_go_on,
        a_constraint_or_a_transformer_that_fails_on_one_rank_undoes_the_step_on_all,
        variables_begin_with_the_values_of_rank_0_and_differences_are_named,
        weights_that_rank_0_has_loaded_are_those_of_all,
        a_copy_of_the_optimizer_goes_on_together,
        an_array_that_was_replaced_is_noticed_on_all_ranks,
        other_libraries_and_strides_are_reduced_too,
        slots_of_smaller_dtypes_are_as_in_one_process,
        a_sum_that_is_not_finite_is_left_out_on_all_ranks,
        sharded_state_says_what_it_does_not_take,
        rank_0_saves_what_all_ranks_restore,
    ):
        check(strategy)
        print(f"rank {strategy.rank}: {check.__name__}", flush=True)
    assert rmsprop.distribute.has_strategy() is False
    print(f"rank {strategy.rank}: all promises kept", flush=True)


if __name__ == "__main__":
    main()
