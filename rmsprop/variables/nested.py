"""Nested lists, tuples and dicts of variables."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rmsprop.arrays.libraries import is_array
from rmsprop.variables.variable import Variable

Tree = Any
"""A variable, which is an array or a `Variable`, or nested lists, tuples and dicts of these."""


def mapped(function: Callable[[Any], Any], sources: Tree) -> Any:
    """Return what a function gives for each source, in the structure of the sources."""
    if isinstance(sources, dict):
        return {key: mapped(function, source) for key, source in sources.items()}
    if isinstance(sources, list | tuple):
        parts = [mapped(function, source) for source in sources]
        if isinstance(sources, list):
            return parts
        return type(sources)(*parts) if hasattr(sources, "_fields") else tuple(parts)
    return function(sources)


def listed(variables: Tree) -> list[Any]:
    """Return the leaves of nested iterables, also of an iterator."""
    return flatten(list(variables) if isinstance(variables, Iterator) else variables)


def flatten(nested: Any) -> list[Any]:
    """Return the leaves of nested iterables, of dicts by their sorted keys, as in Keras."""
    if isinstance(nested, dict):
        nested = [nested[key] for key in sorted(nested)]
    if isinstance(nested, Variable | str) or is_array(nested) or not isinstance(nested, Iterable):
        return [nested]
    return [leaf for item in nested for leaf in flatten(item)]
