"""State of optax's RMSprop as weights of an optimizer, and back."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import Host, as_beside, checked_numbers, to_numpy
from rmsprop.conventions.shared import has_complex_variables, refuse_other_momentum, slots_of
from rmsprop.optimizer import RMSprop
from rmsprop.variables.nested import Tree

NAMES = {"rms": "nu", "momentum": "trace", "mg": "mu"}
"""What optax calls the slots."""

KNOWN = ("count", *NAMES.values())
"""The fields that are read and filled."""


def weights_from_optax(state: Any) -> list[Host]:
    """Return the state of ``optax.rmsprop``, alone or within a chain, as `RMSprop.set_weights` takes it.

    Parameters
    ----------
    state : nested tuples
        What ``init`` or ``update`` returned. Looked at are the fields ``count``, ``nu``, ``mu`` and ``trace`` of
        named tuples.

    Returns
    -------
    list of ndarray
        The number of steps, which is 0 if optax counts none: it does with a schedule or `bias_correction` only.
        Then ``rms`` of all variables in the order of ``jax.tree.leaves``, dicts by their sorted keys;
        ``momentum``, which is ``-trace``; and ``mg``.

    Raises
    ------
    TypeError
        If a leaf is no array.
    ValueError
        If there is no such state, or that of several.

    Examples
    --------
    >>> from typing import NamedTuple
    >>> import numpy as np
    >>> from rmsprop import conventions
    >>> class ScaleByRmsState(NamedTuple):
    ...     nu: dict
    >>> conventions.weights_from_optax((ScaleByRmsState(nu={"w": np.ones(2)}), ()))
    [array(0), array([1., 1.])]
    """
    fields = _fields(state)
    counts = {int(to_numpy(count)) for count in fields["count"]}
    if len(counts) > 1:
        raise ValueError(f"the state counts steps in several places, which differ: {sorted(counts)}.")
    slots: list[Host] = []
    for name, theirs in NAMES.items():
        for leaf in _leaves(fields[theirs][0]) if fields[theirs] else ():
            slot = to_numpy(checked_numbers(leaf, theirs))
            # Of complex variables, optax keeps the average of |g|**2 as complex numbers, too.
            slots.append(slot.real.copy() if name == "rms" else _signed(name, slot))
    return [np.asarray(max(counts, default=0), np.int64), *slots]


def weights_to_optax(optimizer: RMSprop, transformation: Any, params: Tree) -> Any:
    """Return the state of an optimizer as the state of ``optax.rmsprop``, alone or within a chain.

    Parameters
    ----------
    optimizer : RMSprop
        Made by `conventions.optax`, or like it.
    transformation : optax.GradientTransformation
    params : nested dicts, lists and tuples of arrays
        As for ``transformation.init``. In the order of ``jax.tree.leaves``, they are the optimizer's variables.

    Returns
    -------
    nested tuples
        ``transformation.init(params)`` with the numbers of the optimizer, in arrays of the library of `params`.

    Raises
    ------
    ValueError
        If the optimizer has no state yet, or number or shapes of the variables, momentum or `centered` are not as
        there.

    Examples
    --------
    ::

        solver = optax.rmsprop(0.1, momentum=0.9)
        state = conventions.weights_to_optax(opt, solver, params)
        updates, state = solver.update(grads, state, params)
    """
    count, slots = slots_of(optimizer, NAMES)
    template = transformation.init(params)
    there = _fields(template)
    for name, theirs in NAMES.items():
        if bool(there[theirs]) != bool(slots[name]):
            raise ValueError(
                f"the optimizer has {'a' if slots[name] else 'no'} slot {name}, the transformation "
                f"{'a' if there[theirs] else 'no'} state {theirs}; expected both or none."
            )
    if slots["momentum"]:
        refuse_other_momentum(optimizer, True, "optax")
    if optimizer.complex_as_real and has_complex_variables(optimizer):
        raise ValueError("state of complex variables in optax is that of complex_as_real=False.")
    trees = {NAMES[name]: [_signed(name, slot) for slot in kept] for name, kept in slots.items() if kept}
    for theirs, kept in trees.items():
        _check_shapes(theirs, kept, _leaves(there[theirs][0]))

    def filled(field: str, value: Any) -> Any:
        if field == "count":
            return as_beside(np.asarray(count), value, value.dtype)
        if field in trees:
            arrays = iter(trees[field])
            return _mapped(lambda leaf: as_beside(next(arrays), leaf, leaf.dtype, copy=True), value)
        return value

    return _walked(template, filled)


def _signed(name: str, slot: Host) -> Host:
    """Return a slot with the sign that it has there: optax adds up updates, which go down."""
    return np.asarray(-slot) if name == "momentum" else slot


def _named(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _walked(node: Any, filled: Callable[[str, Any], Any]) -> Any:
    """Return nested tuples with what a function makes of the fields of named tuples that are known here."""
    if _named(node):
        parts = {
            field: filled(field, part) if field in KNOWN else _walked(part, filled)
            for field, part in zip(node._fields, node, strict=True)
        }
        return type(node)(**parts)
    return tuple([_walked(part, filled) for part in node]) if type(node) is tuple else node


def _fields(state: Any) -> dict[str, list[Any]]:
    """Return what nested tuples have under the names that are known here."""
    found: dict[str, list[Any]] = {name: [] for name in KNOWN}

    def noted(field: str, value: Any) -> Any:
        found[field].append(value)
        return value

    _walked(state, noted)
    numbers = {name: len(values) for name, values in found.items() if name != "count"}
    if numbers["nu"] != 1 or max(numbers.values()) > 1:
        raise ValueError(
            "expected the state of one optax.rmsprop: nested tuples with one field nu, and at most one mu and "
            f"trace; found {numbers} in {type(state).__name__}."
        )
    return found


def _leaves(tree: Any) -> Iterator[Any]:
    """Yield the leaves of a tree in the order of JAX."""
    if isinstance(tree, Mapping):
        tree = [tree[key] for key in sorted(tree)]
    if isinstance(tree, list | tuple):
        for branch in tree:
            yield from _leaves(branch)
    elif tree is not None:
        yield tree


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree of what a function gives for each leaf, in the order of JAX."""
    if isinstance(tree, Mapping):
        parts = {key: _mapped(function, tree[key]) for key in sorted(tree)}
        return parts if type(tree) is dict else type(tree)(parts)  # type: ignore[call-arg]
    if isinstance(tree, list | tuple):
        branches = [_mapped(function, branch) for branch in tree]
        return type(tree)(*branches) if _named(tree) else type(tree)(branches)
    return None if tree is None else function(tree)


def _check_shapes(field: str, kept: list[Host], leaves: Iterator[Any]) -> None:
    ours, theirs = [slot.shape for slot in kept], [tuple(np.shape(leaf)) for leaf in leaves]
    if ours != theirs:
        raise ValueError(
            f"the variables of the optimizer have the shapes {ours}, those in {field} {theirs}; expected the "
            f"same. JAX goes through dicts by their sorted keys."
        )
