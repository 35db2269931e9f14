"""A program for `mpiexec`: minimize on several ranks is that of the sum of their losses; stops are agreed."""

import tempfile
import time

import numpy as np

import rmsprop
from rmsprop import CheckpointManager, minimize
from rmsprop.distribute import MPIStrategy, ReplicaError


def loss_of(rank):
    """Return the loss of a rank: squared distances to numbers of its own."""
    there = np.random.default_rng(rank).standard_normal(5)

    def loss(x, factor=1.0):
        wrong = x["a"] - factor * there, x["b"] - 1j * there[:2]
        return sum(float(np.sum(np.abs(w) ** 2)) for w in wrong), {"a": 2 * wrong[0], "b": 2 * wrong[1]}

    return loss


def x0(rank=0):
    return {"a": np.full(5, float(rank)), "b": np.zeros(2, complex)}


def total(losses):
    """Return the sum of losses, added up in the order of the ranks."""

    def loss(x, factor=1.0):
        results = [each(x, factor) for each in losses]
        value, gradients = results[0]
        for other, more in results[1:]:
            value, gradients = value + other, {name: gradients[name] + more[name] for name in gradients}
        return value, gradients

    return loss


def check_same(strategy, ours, theirs):
    for name in ("a", "b"):
        np.testing.assert_array_equal(ours.x[name], theirs.x[name])
    np.testing.assert_array_equal(ours.history["fun"], theirs.history["fun"])
    assert (ours.fun, ours.nit, ours.status) == (theirs.fun, theirs.nit, theirs.status)
    strategy.check_synced(ours.x)


def check_steps(strategy, size):
    together, own = total([loss_of(rank) for rank in range(size)]), loss_of(strategy.rank)
    cases = (
        {"steps": 20, "learning_rate": 0.1},
        {"steps": 500, "learning_rate": 0.1, "tol": 1e-3, "patience": 3},
        {"batches": [1.0, 2.0, 0.5], "epochs": 4, "keep_best": True},
        {"steps": 20, "learning_rate": {"a": 0.1, "b": 0.01}, "momentum": 0.5},
    )
    for given in cases:
        alone = minimize(together, x0(), jac=True, **given)
        with strategy.scope():
            check_same(strategy, minimize(own, x0(strategy.rank), jac=True, **given), alone)
            opt = (
                None
                if isinstance(given.get("learning_rate"), dict)
                else rmsprop.RMSprop(given.get("learning_rate", 0.001))
            )
        if opt is not None:  # an optimizer from a strategy takes it along
            rest = {k: v for k, v in given.items() if k != "learning_rate"}
            check_same(strategy, minimize(own, x0(strategy.rank), jac=True, optimizer=opt, **rest), alone)


def check_stops(strategy):
    """Show that what one rank stops by stops all of them at the same step."""
    own, last = loss_of(strategy.rank), strategy.num_replicas_in_sync - 1

    def callback(intermediate_result):
        if strategy.rank == last and intermediate_result.nit == 4:
            raise StopIteration

    def slow(x):
        time.sleep(0.2 if strategy.rank == last else 0.0)
        return own(x)

    def unknown(x):
        value, gradients = own(x)
        return (np.nan if strategy.rank == last and x["a"][0] > 0.2 else value), gradients

    def press(x):
        if strategy.rank == last and x["a"][0] != 0.0:
            import signal

            signal.raise_signal(signal.SIGINT)
        return own(x)

    with strategy.scope():
        given = {"jac": True, "learning_rate": 0.1}
        one_calls = {"callback": callback} if strategy.rank == last else {}
        results = [
            minimize(own, x0(), **one_calls, **given),
            minimize(slow, x0(), **({"max_seconds": 0.5} if strategy.rank == last else {}), **given),
            minimize(unknown, x0(), steps=200, **given),
            minimize(press, x0(), **given),
        ]
    assert [result.status for result in results] in ([99, 2, -1, -2], [99, 2, 0, -2]), results
    assert results[0].nit == 4
    for result in results:
        strategy.check_synced(result.x)
        counts = strategy.all_reduce("sum", np.array([float(result.nit), float(result.status)]))
        assert counts.tolist() == [(last + 1) * result.nit, (last + 1) * result.status]


def check_checkpoints(strategy):
    own, folder = loss_of(strategy.rank), [None]
    if strategy.rank == 0:
        folder[0] = tempfile.mkdtemp()
    folder = strategy.ranks.link.comm.bcast(folder[0], 0)
    given = {"jac": True, "learning_rate": 0.1, "momentum": 0.9}

    def stop(intermediate_result):
        if intermediate_result.nit == 7:
            raise StopIteration

    with strategy.scope():
        whole = minimize(own, x0(), steps=20, **given)
        minimize(own, x0(), steps=20, checkpoint=CheckpointManager(folder), callback=stop, **given)
        rest = minimize(own, x0(), steps=20, checkpoint=CheckpointManager(folder), **given)
    assert rest.nit == 20
    np.testing.assert_array_equal(rest.x["a"], whole.x["a"])


def check_unequal_batches(strategy):
    own = loss_of(strategy.rank)
    if strategy.num_replicas_in_sync == 1:
        return
    with strategy.scope():
        try:
            minimize(own, x0(), jac=True, batches=[1.0] * (3 + (strategy.rank == 0)))
        except ReplicaError:
            return
    raise AssertionError("ranks with different numbers of batches went on")


def main():
    strategy = MPIStrategy()
    check_steps(strategy, strategy.num_replicas_in_sync)
    check_stops(strategy)
    check_checkpoints(strategy)
    check_unequal_batches(strategy)
    print("minimized")


if __name__ == "__main__":
    main()
