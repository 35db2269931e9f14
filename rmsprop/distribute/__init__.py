"""Data-parallel training over MPI and NCCL, in the form of ``tf.distribute``.

Examples
--------
A program that runs on any number of processes, ``mpiexec -n 4 python program.py``::

    import numpy as np
    import rmsprop

    strategy = rmsprop.distribute.MPIStrategy()
    rng = np.random.default_rng(strategy.rank)    # other data on each rank
    x = np.zeros(3)
    with strategy.scope():
        optimizer = rmsprop.RMSprop(learning_rate=0.02)

    def step():
        A = rng.standard_normal((50, 3))
        gradient = A.T @ (A @ x - A @ [1.0, -2.0, 0.5])
        optimizer.apply_gradients([(gradient, x)])    # adds up the gradients of all ranks

    for _ in range(300):
        strategy.run(step)
"""

from rmsprop.distribute.contexts import (
    ReplicaContext,
    get_replica_context,
    get_strategy,
    has_strategy,
    in_cross_replica_context,
)
from rmsprop.distribute.errors import ReplicaError
from rmsprop.distribute.mpi import MPIStrategy
from rmsprop.distribute.nccl import NCCLStrategy
from rmsprop.distribute.operations import ReduceOp
from rmsprop.distribute.strategy import Strategy

__all__ = [
    "MPIStrategy",
    "NCCLStrategy",
    "ReduceOp",
    "ReplicaContext",
    "ReplicaError",
    "Strategy",
    "get_replica_context",
    "get_strategy",
    "has_strategy",
    "in_cross_replica_context",
]


def __dir__() -> list[str]:
    return __all__
