"""Faults in what replicas do together."""

from machinery import Mutant

MUTANTS = [
    Mutant(
        "sums in an order of each rank's own", "rmsprop/distribute/sums.py",
        "test_mpi.py -k 'replicas_train and 4'",
        "parts.insert(link.rank, shares[link.rank])", "parts.append(shares[link.rank])",
    ),
    Mutant(
        "own part overwritten before it is added", "rmsprop/distribute/sums.py",
        "test_mpi.py -k 'replicas_train and 4'",
        "if link.rank > 1 and", "if False and",
    ),
    Mutant(
        "memory of a bucket used while it is under way", "rmsprop/distribute/sums.py",
        "test_mpi.py -k replicas_train",
        "scatter(self._link, shares, self._incoming[k % DEPTH])))\n"
        "            if len(scattered) == DEPTH:\n                gathered",
        "scatter(self._link, shares, self._incoming[0])))\n"
        "            if len(scattered) == DEPTH:\n                gathered",
    ),
    Mutant(
        "halves summed in halves", "rmsprop/distribute/halves.py", "test_mpi.py -k 'keeps_what_it_promises and 2'",
        "if dtypes.name_of(parameter.dtype) not in HALVES or", "if True or",
    ),
    Mutant(
        "each rank clips by the norm of its own gradients", "rmsprop/distribute/steps.py",
        "test_mpi.py -k 'replicas_train and 2'",
        "        or hyper.clips_by_norm\n", "",
    ),
    Mutant(
        "interrupts lost with a step that is refused", "rmsprop/distribute/steps.py",
        "test_distribute.py -k interrupt",
        "            signal.raise_signal(number)", "            pass",
    ),
    Mutant(
        "gradients applied across replicas", "rmsprop/scopes.py", "test_distribute.py -k across_replicas",
        "if context is not None and not context.is_replica:", "if False:",
    ),
    Mutant(
        "scope not left", "rmsprop/scopes.py", "test_distribute.py -k scopes_tell",
        "current.reset(token)", "pass",
    ),
    Mutant(
        "mean that is the sum", "rmsprop/distribute/operations.py",
        "test_mpi.py -k 'keeps_what_it_promises and 2'",
        "return name == ReduceOp.MEAN", "return False",
    ),
    Mutant(
        "last elements of a share in no block", "rmsprop/distribute/sharding.py",
        "test_distribute.py -k blocks_of_a_share",
        "* (end > 0)", "* (end > 1)",
    ),
]  # fmt: skip
