"""A program for `mpiexec`: replicas train as one process does that adds up the same gradients.

``training.py STEPS BUCKET_BYTES``: without and with clipping by norm, and state that is sharded. After ``options``
as a third argument, with options of the formula, averages and multipliers, and with accumulated gradients.
"""

import sys

import numpy as np

import rmsprop
from rmsprop import IndexedSlices, Windows
from rmsprop.distribute import MPIStrategy

SHAPES = {"w": (20, 30), "b": (7,), "z": (50,), "h": (40,)}
DTYPES = {"w": np.float64, "b": np.float64, "z": np.complex64, "h": np.float16}


def variables(seed):
    """Return variables, of which each rank draws others, and only those of rank 0 are to count."""
    rng = np.random.default_rng(seed)
    dense = {name: rng.standard_normal(shape).astype(DTYPES[name]) for name, shape in SHAPES.items()}
    return {**dense, "table": rng.standard_normal((30, 4)).astype(np.float32)}


def gradients(rank, step):
    """Return the gradients of a rank: of halves in single precision, of the table for the rows it has used."""
    rng = np.random.default_rng([rank, step])
    dense = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    dense["z"] = (dense["z"] * (1 - 2j)).astype(np.complex64)
    dense["h"] = dense["h"].astype(np.float32)
    rows = rng.integers(0, 30, rng.integers(0, 5))
    return {**dense, "table": IndexedSlices(rng.standard_normal((len(rows), 4)).astype(np.float32), rows)}


def windows(rank, step):
    """Return the gradient of a rank: of as many windows as it has seen."""
    rng = np.random.default_rng([rank, step])
    values = rng.standard_normal((rank + step % 3, 2, 3)).astype(np.float32)
    return Windows(values * np.complex64(1 - 2j), rng.integers(0, 5, (len(values), 2)))


def added(parts):
    """Return the sum of one variable's gradients, in the order of the ranks."""
    if isinstance(parts[0], Windows):
        return Windows(np.concatenate([p.values for p in parts]), np.concatenate([p.starts for p in parts]))
    if isinstance(parts[0], IndexedSlices):
        return IndexedSlices(np.concatenate([p.values for p in parts]), np.concatenate([p.indices for p in parts]))
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


OPTIONS = {
    "nesterov": True,
    "weight_decay": 0.1,
    "decoupled": True,
    "lazy": False,
    "bias_correction": True,
    "use_ema": True,
    "ema_overwrite_frequency": 5,
    "initial_accumulator": 1.0,
}


def optimizer(settings):
    return rmsprop.RMSprop(0.01, momentum=0.9, centered=True, **settings)


def train(strategy, steps, settings, tolerance=0):
    """Train replicas and a single process; check that they are the same, to the bit but for a tolerance."""
    own, alone = variables(strategy.rank), variables(0)
    with strategy.scope():
        together = optimizer(settings)
    single = optimizer(settings)
    for opt, arrays in ((together, own), (single, alone)) if settings is OPTIONS else ():
        opt.build(arrays.values())
        opt.group([arrays["w"], arrays["table"]], lr_mult=0.5, wd_mult=2.0)

    def step(number):
        given = gradients(strategy.rank, number)
        together.apply_gradients([(given[name], own[name]) for name in own])

    for number in range(steps):
        strategy.run(step, args=(number,))
        everyone = [gradients(rank, number) for rank in range(strategy.num_replicas_in_sync)]
        single.apply_gradients([(added([g[name] for g in everyone]), alone[name]) for name in alone])
    strategy.check_synced(own)
    for name in own:
        precise = tolerance if own[name].dtype == np.float64 else max(tolerance, 1e-2 * bool(tolerance))
        np.testing.assert_allclose(own[name], alone[name], precise, precise, err_msg=name)
    for mine, expected in zip(together.get_weights(), single.get_weights(), strict=True):
        precise = max(tolerance, 1e-2 * bool(tolerance))
        np.testing.assert_allclose(mine, expected, precise, precise)
    return together, own


def train_windows(strategy, steps):
    """Train replicas that see different windows, and a single process that sees all; check that they agree."""
    own, alone = np.full((8, 9), strategy.rank, np.complex64), np.zeros((8, 9), np.complex64)
    with strategy.scope():
        together = optimizer({"global_clipnorm": 3.0})
    single = optimizer({"global_clipnorm": 3.0})
    for number in range(steps):
        together.apply_gradients([(windows(strategy.rank, number), own)])
        everyone = [windows(rank, number) for rank in range(strategy.num_replicas_in_sync)]
        single.apply_gradients([(added(everyone), alone)])
    strategy.check_synced([own])
    np.testing.assert_array_equal(own, alone)


def move(strategy, source, own):
    """Load the weights of one optimizer into one of another strategy, and take the same step with both."""
    with strategy.scope():
        target = optimizer({})
    copies = {name: array.copy() for name, array in own.items()}
    target.build(copies.values())
    target.set_weights(source.get_weights())
    given = gradients(strategy.rank, 10_000)
    for opt, arrays in ((source, own), (target, copies)):
        opt.apply_gradients([(given[name], arrays[name]) for name in own])
    for name in own:
        np.testing.assert_array_equal(own[name], copies[name], err_msg=name)
    strategy.check_synced(target.get_weights())


def main(steps, bucket_bytes, kind=""):
    settings = {"timeout": 60, "bucket_bytes": int(bucket_bytes)}
    plain, sharded = MPIStrategy(**settings), MPIStrategy(**settings, shard_state=True)
    trained = {}
    train_windows(plain, int(steps))
    for strategy in (plain, sharded) if kind == "options" else ():
        train(strategy, int(steps), OPTIONS)
        train(strategy, 6, {"accumulate": 2}, tolerance=1e-9)  # sums come in another order
    if kind == "options":
        print(f"rank {plain.rank}: the same as one process", flush=True)
        return
    for strategy in (plain, sharded):
        for settings in ({"global_clipnorm": 3.0}, {}):
            trained[strategy] = train(strategy, int(steps), settings)
    move(plain, *trained[sharded])
    move(sharded, *trained[plain])
    whole = sum(w.nbytes for w in trained[plain][0].get_weights()[1:])
    own = sum(slot.own.nbytes for slot in trained[sharded][0].weights[1:])
    assert (
        own * strategy.num_replicas_in_sync
        < 1.01 * whole + 16 * len(trained[sharded][0].weights) * strategy.num_replicas_in_sync
    )
    print(f"rank {plain.rank}: the same as one process", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
