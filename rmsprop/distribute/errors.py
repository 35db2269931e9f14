"""The error for replicas that can not go on together."""


class ReplicaError(RuntimeError):
    """A rank failed, is missing, or does not do what the others do; the message names it.

    Nothing of the step has been applied. It is raised on all ranks that still answer, and ends the job unless it
    is caught.

    Examples
    --------
    >>> from rmsprop.distribute import ReplicaError
    >>> issubclass(ReplicaError, RuntimeError)
    True
    """
