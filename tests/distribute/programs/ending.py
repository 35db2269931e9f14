"""A program for `mpiexec` that ends in odd ways, none of which is a fault."""

import atexit
import os

import numpy as np
from mpi4py import MPI

from rmsprop.distribute import MPIStrategy

strategy = MPIStrategy(timeout=5)
if strategy.rank == 0:
    child = os.fork()
    if child == 0:
        atexit._run_exitfuncs()  # as at the end of a program
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
assert strategy.reduce("sum", np.ones(1)) == strategy.num_replicas_in_sync
MPI.Finalize()
print("the end", flush=True)
