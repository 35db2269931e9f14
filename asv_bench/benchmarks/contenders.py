"""What takes part in each comparison: rmsprop, and the limit.

Each function makes variables of its own and returns how to take a step. All compute the formula of Keras in
float32 with the same hyperparameters; see `peers` for what differs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.scenarios import draw, draw_rows

LEARNING_RATE, RHO, EPSILON = 1e-4, 0.9, 1e-7


class Contender(NamedTuple):
    """How to take a step."""

    step: Callable[[], Any]
    """Takes a step, and waits for its end."""
    renew: Callable[[], Any] | None = None
    """Replaces the gradients by new arrays; None if they are sparse."""
    streams: tuple[list[Any], ...] = ()
    """The arrays that a step has to read and write: gradients, slots, variables."""


def ours(scenario):
    from rmsprop import IndexedSlices, RMSprop

    variables = [np.zeros(shape, np.float32) for shape in scenario.shapes]
    optimizer = RMSprop(LEARNING_RATE, RHO, epsilon=EPSILON, **scenario.settings)
    gradients = [IndexedSlices(*draw_rows(scenario))] if scenario.listed else draw(scenario.shapes)
    current = gradients

    def step():
        optimizer.apply_gradients(zip(current, variables, strict=True))

    def renew():
        nonlocal current
        current = [g.copy() for g in gradients]

    step()
    return Contender(step, renew, (gradients, *slots(optimizer, variables, scenario.settings), variables))


def slots(optimizer, variables, settings):
    """Return the lists of slots; of smaller state, arrays of float32 as it would be."""
    names = ["rms"] + ["momentum"] * ("momentum" in settings) + ["mg"] * settings.get("centered", False)
    if "state_dtype" in settings:
        return [[np.zeros_like(v) for v in variables] for _ in names]
    return [[optimizer.get_slot(v, name).array for v in variables] for name in names]


def limit(scenario, streams):
    """Return what streams the arrays of rmsprop once."""
    from benchmarks import limit

    if scenario.listed:
        (gradient,), (rms,), (variable,) = streams
        return Contender(limit.gathering(gradient.values, gradient.indices, rms, variable))
    return Contender(limit.streaming(streams, "global_clipnorm" in scenario.settings), lambda: None)
