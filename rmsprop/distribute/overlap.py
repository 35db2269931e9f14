"""Updates of the first buckets while the sums of others are still under way."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop.backends import Gradient, Hyperparameters
from rmsprop.distribute.buckets import Segment
from rmsprop.distribute.reduction import Reduction, flattened, summed_in
from rmsprop.distribute.sums import Vector
from rmsprop.distribute.undo import Journal
from rmsprop.parameters import Parameter
from rmsprop.step import by_backend, prepared
from rmsprop.variable import Variable


class Batch(NamedTuple):
    """What is updated when the sums of a bucket have arrived."""

    parameters: list[Parameter]
    gradients: list[Any]
    """Where the sums arrive, in the shapes of the parameters."""
    journal: Journal


class Batches:
    """The batches of a list of parameters.

    Parameters
    ----------
    vector : Vector
    parameters : sequence of Parameter
    """

    def __init__(self, vector: Vector, parameters: Sequence[Parameter]) -> None:
        self._parameters = list(parameters)
        self._slots = [len(p.slots) for p in parameters]
        self.batches = []
        for k, bucket in enumerate(vector.buckets):
            pieces = [piece(parameters[s.position], s.start, s.stop) for s in bucket.segments]
            sums = [_view(vector.part(k), s, p) for s, p in zip(bucket.segments, pieces, strict=True)]
            self.batches.append(Batch(pieces, sums, Journal(pieces)))

    def __len__(self) -> int:
        return len(self._parameters)

    def are_of(self, parameters: Sequence[Parameter]) -> bool:
        """Tell whether they are the batches of these parameters, with the slots that they have now."""
        return len(parameters) == len(self._parameters) and all(
            [
                a is b and len(a.slots) == n
                for a, b, n in zip(parameters, self._parameters, self._slots, strict=True)
            ]
        )


def update_by_bucket(
    reduction: Reduction,
    parameters: Sequence[Parameter],
    gradients: Sequence[Gradient],
    hyper: Hyperparameters,
    journals: list[Journal],
) -> Callable[[], object] | None:
    """Update variables bucket by bucket, if that can be done and there are several; return what updates the last.

    The journals keep what has been updated.
    """
    if hyper.state_dtype is not None or len({p.dtype for p in parameters}) > 1:
        return None
    if not all([_can_be_cut(p, g) for p, g in zip(parameters, gradients, strict=True)]):
        return None
    vector = reduction.vector([p.shape for p in parameters], summed_in(parameters[0].dtype))
    if len(vector.buckets) < 2:
        return None
    plans = parameters[0].plans
    kept: Batches | None = plans.get(vector)
    if kept is None or not kept.are_of(parameters):
        kept = Batches(vector, parameters)
        plans.keep(vector, kept)
    arriving = vector.sums([flattened(g) for g in gradients])
    for batch, _ in zip(kept.batches, arriving, strict=True):
        finish = prepared(by_backend(batch.parameters, batch.gradients), hyper)
        if batch is kept.batches[-1]:
            return finish
        batch.journal.keep()
        journals.append(batch.journal)
        finish()
    return None


def _can_be_cut(parameter: Parameter, gradient: Gradient) -> bool:
    """Tell whether variable and slots lie in memory in C order, and the sum has the variable's dtype."""
    arrays = [v.array for v in (parameter.variable, *parameter.slots.values())]
    return (
        type(gradient) is np.ndarray
        and summed_in(parameter.dtype) == parameter.dtype
        and all(
            [isinstance(a, np.ndarray) and a.flags.c_contiguous and a.shape == parameter.shape for a in arrays]
        )
    )


def piece(parameter: Parameter, start: int, stop: int) -> Parameter:
    """Return a stretch of the elements of a parameter as one of its own, in the same memory."""
    if stop - start == parameter.variable.array.size:
        return parameter

    def cut(variable: Variable) -> Variable:
        return Variable.around(variable.array.reshape(-1)[start:stop], variable.name, trainable=False)

    slots = {name: cut(slot) for name, slot in parameter.slots.items()}
    return Parameter(cut(parameter.variable), True, slots)


def _view(sums: Any, segment: Segment, parameter: Parameter) -> Any:
    at = segment.at
    return sums[at : at + segment.stop - segment.start].reshape(parameter.shape)
