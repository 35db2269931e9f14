"""Trees: nested lists, tuples and dicts of variables, or of what belongs to each of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np

from rmsprop.arrays.libraries import is_array
from rmsprop.variables.variable import Variable

Tree = Any
"""A variable, which is an array or a `Variable`, or nested lists, tuples and dicts of these."""

Path = tuple[Any, ...]
"""The keys, as text, and positions that lead to a leaf of a tree."""


def is_leaf(x: Any) -> bool:
    """Tell whether something is a variable, or anything else that has no branches."""
    return isinstance(x, Variable | str | bytes) or is_array(x) or not isinstance(x, Iterable)


def keys_of(tree: Mapping[Any, Any]) -> list[Any]:
    """Return the keys of a dict in the order in which its variables count: sorted, as in Keras and JAX."""
    try:
        return sorted(tree)
    except TypeError:  # keys of several kinds
        return list(tree)


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the leaves of nested iterables, each with its path."""
    if is_leaf(tree):
        yield path, tree
        return
    if isinstance(tree, Mapping):
        for key in keys_of(tree):
            yield from leaves(tree[key], (*path, str(key)))
        return
    for position, branch in enumerate(tree):
        yield from leaves(branch, (*path, position))


def flatten(nested: Any) -> list[Any]:
    """Return the leaves of nested iterables."""
    return [leaf for _, leaf in leaves(nested)]


def listed(variables: Tree) -> list[Any]:
    """Return the leaves of nested iterables, also of an iterator."""
    return flatten(list(variables) if isinstance(variables, Iterator) else variables)


def is_tree(x: Any) -> bool:
    """Tell whether something is a list, a tuple or a dict, in which others are."""
    return isinstance(x, dict | list | tuple)


def mapped(function: Callable[[Any], Any], sources: Tree) -> Any:
    """Return what a function gives for each source, in the structure of the sources."""
    if isinstance(sources, dict):
        results = {key: mapped(function, sources[key]) for key in keys_of(sources)}
        return {key: results[key] for key in sources}
    if isinstance(sources, list | tuple):
        parts = [mapped(function, source) for source in sources]
        if isinstance(sources, list):
            return parts
        return type(sources)(*parts) if hasattr(sources, "_fields") else tuple(parts)
    return function(sources)


def rebuilt(like: Tree, values: Iterable[Any]) -> Any:
    """Return values, in the order of `flatten`, in the structure of a tree."""
    rest = iter(values)
    return mapped(lambda _: next(rest), like)


def matched(values: Any, like: Tree) -> list[Any] | None:
    """Return values that have the structure of a tree in the order of `flatten`; None if they have another one.

    What belongs to a leaf of the tree may itself be a list, such as numbers. None stands for a None of each leaf.
    """
    if not is_tree(like):
        return None if isinstance(values, dict) else [values]
    if values is None:
        return [None] * len(flatten(like))
    branches = _branches(values, like)
    if branches is None:
        return None
    found = [matched(value, branch) for value, branch in branches]
    return None if None in found else [leaf for part in found for leaf in part or ()]


def _branches(values: Any, like: Any) -> list[tuple[Any, Any]] | None:
    """Return the values of each branch of a tree, and the branch."""
    if isinstance(like, dict):
        if not isinstance(values, dict) or values.keys() != like.keys():
            return None
        return [(values[key], like[key]) for key in keys_of(like)]
    if isinstance(values, Mapping) or is_leaf(values):
        return None
    values = values if isinstance(values, Sequence) else list(values)
    return list(zip(values, like, strict=True)) if len(values) == len(like) else None


def outline(tree: Any) -> str:
    """Return how messages show a structure: with the types of what is in it, but no library's of arrays."""
    if isinstance(tree, dict):
        text = "{" + ", ".join(f"{key!r}: {outline(each)}" for key, each in tree.items()) + "}"
    elif isinstance(tree, list | tuple):
        text = ("[{}]" if isinstance(tree, list) else "({})").format(", ".join(map(outline, tree)))
    else:
        text = "array" if is_array(tree) or isinstance(tree, Variable) else type(tree).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def named(variables: Tree) -> list[tuple[str, Any]]:
    """Return variables with their names: keys of dicts and positions in lists, joined by ``/``.

    In a list, a `Variable` goes by its own name. Of several with one name, the later ones get ``_1``, ``_2`` ...
    appended.
    """
    found: dict[str, Any] = {}
    for path, variable in leaves(variables):
        is_own = isinstance(variable, Variable) and not (path and isinstance(path[-1], str))
        *outer, last = path or (0,)
        name = first = "/".join(map(str, (*outer, variable.name if is_own else last)))
        count = 0
        while name in found:
            count += 1
            name = f"{first}_{count}"
        found[name] = variable
    return list(found.items())


def start_of(x0: Tree) -> Tree:
    """Return a point to start from, with arrays in place of numbers and of lists of numbers."""
    found = flatten(x0)
    if found and all([isinstance(leaf, Number | np.generic) for leaf in found]) and not isinstance(x0, dict):
        try:
            return np.asarray(x0)
        except ValueError:
            raise ValueError(f"x0 must not consist of lists of different lengths; given {x0!r}.") from None
    if isinstance(x0, dict):
        return {key: start_of(value) for key, value in x0.items()}
    if isinstance(x0, list | tuple):
        branches = [start_of(branch) for branch in x0]
        return type(x0)(*branches) if hasattr(x0, "_fields") else type(x0)(branches)
    return x0
