"""Steps that are captured in a CUDA graph, to be replayed with other hyperparameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rmsprop.arrays.libraries import Array
from rmsprop.backends import SPARSE, Refresh
from rmsprop.formula import Hyperparameters
from rmsprop.settings.rows import captured
from rmsprop.settings.settings import Settings
from rmsprop.step.groups import Group
from rmsprop.variables.observers import tapes, tell_tapes
from rmsprop.variables.variable import Variable


class Captured(NamedTuple):
    """A step that has been captured in a graph."""

    variables: Sequence[Variable | Array]
    fixed: dict[str, Any]
    """What its replays have in common of the hyperparameters."""
    refresh: Refresh


def check_capturable(
    groups: Sequence[Group], given: Sequence[object], needed: Sequence[str], hyper: Hyperparameters
) -> None:
    """Raise ``RuntimeError`` unless a captured step does the same as one that is taken.

    Parameters
    ----------
    groups : sequence of Group
    given : sequence
        The gradients as the user gave them: a copy would be gone by the time of the replay.
    needed : sequence of str
        The names of the slots.
    hyper : Hyperparameters
    """
    parameters = [p for group in groups for p in group.parameters]
    gradients = [g for group in groups for g in group.gradients]
    reasons = [
        ("all variables must be CuPy arrays", len(groups) > 1),
        ("call build(var_list) before, or take a step", not all(p.slots.keys() >= {*needed} for p in parameters)),
        ("loss_scale changes from step to step, which a graph can't follow", hyper.loss_scale != 1.0),
        ("nonfinite='raise' would have to wait for the device", hyper.nonfinite == "raise"),
        ("variables can't be set to their averages", hyper.ema_overwrite_frequency is not None),
        ("variables can't have constraints", any(p.variable.constraint is not None for p in parameters)),
        (
            "gradients must be dense arrays with the dtype of their variables",
            any(isinstance(g, SPARSE) for g in gradients) or {*map(id, gradients)} != {*map(id, given)},
        ),
    ]
    for reason, is_broken in reasons:
        if is_broken:
            raise RuntimeError(f"A step can't be captured in a graph: {reason}.")


def advance(settings: Settings) -> None:
    """Count a replay, and bring its hyperparameters to the device; see `rmsprop.RMSprop.advance`."""
    state = settings.state
    steps, iterations = state.parameters.captured, state.iterations
    if not steps:
        raise RuntimeError("no step has been captured: call apply_gradients while a stream captures.")
    if settings.depends_on_step(rounds=settings.values["nonfinite"] != "skip"):
        iterations.settle()
    hyper = settings.read(int(iterations.count))
    for name, value in captured(hyper).items():
        if value != steps[-1].fixed[name]:
            raise RuntimeError(
                f"{name} can't change between replays of a captured step, which has "
                f"{steps[-1].fixed[name]!r}; given {value!r}. Capture the step again."
            )
    for step in steps:
        if step.fixed == steps[-1].fixed:
            step.refresh(hyper)
            if tapes:
                tell_tapes(*step.variables)
    iterations.count[()] += 1
    if iterations.tally is not None:
        iterations.tally.replayed()
