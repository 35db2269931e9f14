"""Replicas that are the ranks of an MPI communicator."""

from typing import Any

from rmsprop.distribute.link import Link
from rmsprop.distribute.ranks import Ranks
from rmsprop.distribute.reduction import Reduction
from rmsprop.distribute.strategy import Strategy

BUCKET_BYTES = 16 * 2**20
TIMEOUT = 300.0


class MPIStrategy(Strategy):
    """Data-parallel training: each rank of an MPI communicator is a replica.

    All ranks run the same program, each with other data. An optimizer that is made in the `scope` adds up the
    gradients of all ranks and takes the same step on each, to the bit. What keeps the ranks from going on together
    ends the job, with a message that names the rank: an exception on one of them, other variables, shapes or
    settings, a rank that has left, was killed or hangs.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default ``mpi4py.MPI.COMM_WORLD``. To make a strategy is collective: all its ranks do.
    shard_state : bool, default False
        Whether each rank keeps and updates only its share of the slots, one of n equal parts of each variable. The
        results are the same to the bit. Variables must be NumPy arrays in C order, without constraints.
        ``get_weights`` and slots' ``numpy()`` gather whole ones: all ranks call them, in the same order.
    timeout : float, default 300.0
        Seconds that a rank waits for the others: longer than the slowest of them takes for its gradients.
    bucket_bytes : int, default 16 MiB
        Size of the buckets in which gradients travel.
    cuda_aware : bool, default False
        Whether this MPI takes memory of GPUs. If not, dense gradients of CuPy arrays go through pinned memory of
        the host, as sparse ones always do.

    Raises
    ------
    ImportError
        If mpi4py is not installed.
    TypeError
        If `comm` is no communicator, or that of others.
    ValueError
        If `timeout` or `bucket_bytes` is not positive.

    Notes
    -----
    All ranks make the same calls in the same order, and so in one thread. A step has three parts. First the ranks
    compare what they are about to do: a difference, or an error on one of them, is raised on all, and they can go
    on after it. Then gradients are added up, and all is done that may fail; an error while others wait for sums
    ends the job. When all have come so far, they agree once more, and each updates its variables. From then on the
    step is taken, even if a rank is killed; Ctrl-C waits for the end of the update. An error in the update itself,
    as when there is no memory to compile a kernel at the first step, ends the job, but the others have taken the
    step.

    A rank sends its last word to each of the others. If it is stopped when some of them have got it and some have
    not, which takes three ranks, the former take a step that the latter do not. They wait for it at the next one,
    so that the job ends after `timeout`.

    With `shard_state`, what has been updated earlier is put back if the step fails. Ranks that the launcher kills
    meanwhile can't do so, which is seen in variables that are mapped to files.

    At the end of its program, a rank waits for the others without limit, since one may still write its results;
    after `timeout` it says so.

    Examples
    --------
    Run by ``mpiexec -n 4 python program.py``, or alone, as here:

    >>> import numpy as np
    >>> import rmsprop
    >>> strategy = rmsprop.distribute.MPIStrategy()
    >>> with strategy.scope():
    ...     optimizer = rmsprop.RMSprop(learning_rate=0.1)
    >>> x = np.ones(3)
    >>> def step(data):
    ...     return optimizer.apply_gradients([(data * x, x)])
    >>> strategy.run(step, args=(0.5,)).numpy()
    array(1)
    """

    def __init__(
        self,
        comm: Any = None,
        *,
        shard_state: bool = False,
        timeout: float = TIMEOUT,
        bucket_bytes: int = BUCKET_BYTES,
        cuda_aware: bool = False,
    ) -> None:
        checked(timeout=timeout, bucket_bytes=bucket_bytes)
        self._given = {
            "comm": comm,
            "shard_state": shard_state,
            "timeout": timeout,
            "bucket_bytes": bucket_bytes,
            "cuda_aware": cuda_aware,
        }
        link = Link(communicator(comm), timeout)
        self.shard_state = shard_state and link.size > 1
        self.ranks = Ranks(link, Reduction(link, bucket_bytes, cuda_aware))


def checked(**settings: float) -> None:
    """Raise ``ValueError`` for settings that are not positive."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive; given {value!r}.")


def communicator(comm: Any) -> Any:
    """Return a communicator of MPI: by default, that of all ranks."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError("strategies need mpi4py: pip install mpi4py mpich.") from error
    if comm is None:
        return MPI.COMM_WORLD
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise TypeError(f"comm must be an mpi4py.MPI.Intracomm that this process is in; given {comm!r}.")
    return comm
