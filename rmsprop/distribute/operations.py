"""Operations on the values of all replicas."""

from enum import StrEnum


class ReduceOp(StrEnum):
    """How the values of replicas become one; the words "sum" and "mean" mean the same.

    Examples
    --------
    >>> from rmsprop import distribute
    >>> float(distribute.Strategy().reduce(distribute.ReduceOp.SUM, 2.0))    # of one replica
    2.0
    """

    SUM = "sum"
    MEAN = "mean"


def is_mean(reduce_op: str) -> bool:
    """Tell whether an operation is the mean, and not the sum; ``ValueError`` if it is neither."""
    name = str(reduce_op).lower()
    if name not in list(ReduceOp):
        raise ValueError(f'reduce_op must be "sum" or "mean"; given {reduce_op!r}.')
    return name == ReduceOp.MEAN
