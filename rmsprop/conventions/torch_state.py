"""State of PyTorch's RMSprop, and of timm's, as weights of an optimizer, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import Host, to_numpy
from rmsprop.conventions.shared import has_complex_variables, refuse_other_momentum, slots_of
from rmsprop.formula import NEUTRAL
from rmsprop.optimizer import RMSprop
from rmsprop.schedules import LearningRateSchedule

NAMES = {"rms": "square_avg", "momentum": "momentum_buffer", "mg": "grad_avg"}
"""What PyTorch calls the slots."""


def weights_from_torch(state_dict: Mapping[str, Any]) -> list[Host]:
    """Return the state of ``torch.optim.RMSprop``, or of timm's ``RMSpropTF``, as `RMSprop.set_weights` takes it.

    Parameters
    ----------
    state_dict : mapping
        What ``state_dict()`` of the optimizer in PyTorch returned, as a whole: its ``param_groups`` tell the order
        of variables, and of `maximize`, with which ``grad_avg`` has the other sign. Values are tensors or arrays.

    Returns
    -------
    list of ndarray
        The number of steps, the largest if variables have several; then ``rms`` of all variables that have state,
        ``momentum``, and ``mg``. The momentum is that of `conventions.torch`: for an optimizer whose momentum
        includes the learning rate, multiply it by that.

    Raises
    ------
    TypeError
        If it is no such dict.
    ValueError
        If it holds no state, or that of another optimizer, or if only some variables have momentum or an average
        of gradients.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop import conventions
    >>> saved = {
    ...     "state": {0: {"step": np.float32(7), "square_avg": np.full(2, 0.5)}},
    ...     "param_groups": [{"maximize": False, "params": [0]}],
    ... }
    >>> x = np.ones(2)
    >>> opt = conventions.torch(lr=0.1)
    >>> opt.build([x])
    >>> opt.set_weights(conventions.weights_from_torch(saved))
    >>> int(opt.iterations), opt.get_slot(x, "rms").numpy()
    (7, array([0.5, 0.5]))
    """
    states, groups = _parts(state_dict)
    kept = [(key, states[key], group) for group in groups for key in group["params"] if states.get(key)]
    if not kept:
        raise ValueError("the state_dict holds no state: no step has been taken.")
    names = [name for name, theirs in NAMES.items() if theirs in kept[0][1]]
    for key, state, _ in kept:
        if "rms" not in names or any((theirs in state) != (name in names) for name, theirs in NAMES.items()):
            raise ValueError(
                f"parameter {key} has the state {sorted(state)}; expected square_avg, and like all others "
                f"{' and '.join(NAMES[name] for name in names) or 'no more'}."
            )
    count = max(int(to_numpy(state.get("step", 0))) for _, state, _ in kept)
    slots = [_signed(name, to_numpy(state[NAMES[name]]), group) for name in names for _, state, group in kept]
    return [np.asarray(count, np.int64), *slots]


def weights_to_torch(optimizer: RMSprop, state_dict: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the state of an optimizer as ``load_state_dict`` of ``torch.optim.RMSprop``, or of timm's, takes it.

    Parameters
    ----------
    optimizer : RMSprop
        Made by `conventions.torch` or `conventions.timm`, or like these.
    state_dict : mapping, optional
        What ``state_dict()`` of the optimizer in PyTorch returns, whose ``param_groups`` are kept: order of
        variables and hyperparameters. By default, there is one group of all variables in the order in which the
        optimizer came to know them, with its hyperparameters.

    Returns
    -------
    dict
        With tensors on the CPU, which PyTorch brings to its parameters.

    Raises
    ------
    ModuleNotFoundError
        If PyTorch is missing.
    ValueError
        If the optimizer has no state yet, or number of variables, momentum, `centered`, `maximize` or the parts of
        complex numbers are not as there.

    Notes
    -----
    PyTorch keeps the number of steps in single precision, which is exact up to 2**24.

    Examples
    --------
    ::

        theirs = torch.optim.RMSprop(model.parameters(), lr=0.1)
        theirs.load_state_dict(conventions.weights_to_torch(opt, theirs.state_dict()))
    """
    import torch

    count, slots = slots_of(optimizer, NAMES)
    n = len(slots["rms"])
    states, groups = ({}, [_group(optimizer, n)]) if state_dict is None else _parts(state_dict)
    members = [(key, group) for group in groups for key in group["params"]]
    if len(members) != n:
        members = [(key, group) for key, group in members if states.get(key)]  # others are not trained
    if len(members) != n:
        raise ValueError(f"the optimizer has state of {n} variables; the state_dict is of {len(members)}.")
    if not optimizer.complex_as_real and has_complex_variables(optimizer):
        raise ValueError("state of complex variables in PyTorch is that of complex_as_real=True.")
    for group in groups:
        _check_fits(optimizer, slots, group)
    result: dict[Any, dict[str, Any]] = {}
    for i, (key, group) in enumerate(members):
        arrays = {NAMES[name]: _signed(name, kept[i], group) for name, kept in slots.items() if kept}
        step = torch.tensor(float(count), dtype=torch.float32)
        result[key] = {"step": step, **{name: torch.from_numpy(array) for name, array in arrays.items()}}
    return {"state": result, "param_groups": [dict(group) for group in groups]}


def _parts(state_dict: Any) -> tuple[Mapping[Any, Any], list[Mapping[str, Any]]]:
    try:
        return state_dict["state"], list(state_dict["param_groups"])
    except (KeyError, TypeError, IndexError):
        raise TypeError(
            "expected the whole state_dict of an optimizer in PyTorch, with state and param_groups; given "
            f"{list(state_dict) if isinstance(state_dict, Mapping) else type(state_dict)}."
        ) from None


def _signed(name: str, slot: Host, group: Mapping[str, Any]) -> Host:
    """Return a slot with the sign that it has there: with `maximize`, PyTorch averages negative gradients."""
    return np.asarray(-slot) if name == "mg" and group.get("maximize", False) else slot


def _check_fits(optimizer: RMSprop, slots: Mapping[str, list[Host]], group: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if an optimizer has other slots than a group of PyTorch, or in other units."""
    for name, theirs, ours in (
        ("momentum", group.get("momentum", 0) > 0, bool(slots["momentum"])),
        ("centered", bool(group.get("centered", False)), bool(slots["mg"])),
        ("maximize", bool(group.get("maximize", False)), optimizer.maximize),
    ):
        if theirs != ours:
            raise ValueError(
                f"{name} of the optimizer is {'on' if ours else 'off'}, that of the param_group "
                f"{group.get(name)!r}; expected both alike."
            )
    if slots["momentum"]:
        includes_lr = bool(group.get("lr_in_momentum", False))
        refuse_other_momentum(optimizer, includes_lr, "timm" if includes_lr else "torch")


def _group(optimizer: RMSprop, n: int) -> dict[str, Any]:
    """Return a group of PyTorch with the hyperparameters of an optimizer."""
    in_groups = any(each.multipliers != NEUTRAL for each in optimizer._state.parameters)
    others = optimizer.decoupled, optimizer.nesterov, optimizer.bias_correction, in_groups
    if optimizer.epsilon_in_sqrt is not False or any(others):
        raise ValueError(
            "without a state_dict, the optimizer must compute as conventions.torch makes it, without groups; "
            f"given {optimizer!r}."
        )
    rate, decay = optimizer.current_learning_rate, optimizer.weight_decay
    return {
        "lr": rate,
        "momentum": float(optimizer.momentum),
        "alpha": float(optimizer.rho),
        "eps": optimizer.epsilon,
        "centered": optimizer.centered,
        "weight_decay": float(decay(0) if isinstance(decay, LearningRateSchedule) else decay),
        "capturable": False,
        "foreach": None,
        "maximize": optimizer.maximize,
        "differentiable": False,
        "params": list(range(n)),
    }
