"""The point that a minimisation moves: the variables of `x0`, in its structure."""

import copy
from typing import Any

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Array, as_floats, copied, is_array, namespace, refuse_subclass, unrecorded
from rmsprop.backends import is_updated_in_place
from rmsprop.optimizer import RMSprop
from rmsprop.settings.checks import Pairs
from rmsprop.variables.nested import (
    Tree,
    flatten,
    is_tree,
    keys_of,
    mapped,
    matched,
    named,
    outline,
    rebuilt,
    start_of,
)
from rmsprop.variables.variable import Variable, array_of


class Point:
    """Variables in the structure of `x0`.

    Parameters
    ----------
    x0 : array, Variable, or nested list, tuple or dict of these
        A list of numbers is taken for an array.
    overwrites : bool
        Whether these very arrays are changed, and not copies.

    Attributes
    ----------
    tree : array, Variable, or nested list, tuple or dict of these
        What an optimizer is given.
    variables : list of array or Variable
        The leaves of the tree.
    """

    def __init__(self, x0: Tree, overwrites: bool) -> None:
        self._x0 = start_of(x0)
        found = named(self._x0)
        if not found:
            raise ValueError("x0 must have at least one array; given none.")
        for name, leaf in found:
            _check_leaf(leaf, name)
        own = _own if overwrites else _copied
        self.names = [name for name, _ in found]
        self.variables = [own(leaf, name) for name, leaf in found]
        self.tree = rebuilt(self._x0, self.variables)
        self._plan = _plan_of(self.tree)
        is_fixed = all([is_updated_in_place(array_of(v)) for v in self.variables])
        self._fixed = mapped(array_of, self.tree) if is_fixed else None

    @property
    def x(self) -> Any:
        """The arrays, in the structure of `x0`: what the caller's functions are given."""
        return mapped(array_of, self.tree) if self._fixed is None else self._fixed

    def pairs(self, gradients: Any) -> Pairs:
        """Return gradients in the structure of `x0`, each with its variable."""
        if self._plan is None:
            return [(gradients, self.tree)]
        found: list[Any] = []
        if not _collected(gradients, self._plan, found):
            found = self.matched(gradients, "the gradients")
        return list(zip(found, self.variables, strict=True))

    def matched(self, values: Any, what: str) -> list[Any]:
        """Return what belongs to each variable; ``ValueError`` if the structure is not that of `x0`."""
        found = matched(values, self.tree)
        if found is None:
            raise ValueError(
                f"{what} must have the structure of x0, {outline(self.tree)}; given {outline(values)}."
            )
        return found

    def copy(self) -> Any:
        """Return copies of the arrays, in the structure of `x0`."""
        return mapped(lambda v: copied(array_of(v)), self.tree)

    def assign(self, values: list[Array], what: str) -> None:
        """Give the variables other values, which may be their own arrays; all of them, or none."""
        arrays = [array_of(v) for v in self.variables]
        for name, array, value in zip(self.names, arrays, values, strict=True):
            _check_fits(value, array, f"{what} of {name!r}")
        for variable, array, value in zip(self.variables, arrays, values, strict=True):
            if value is array:
                continue
            with unrecorded(array):
                if isinstance(variable, Variable):
                    variable.assign(value)
                else:
                    variable[...] = value

    def result(self) -> Any:
        """Return the variables as `x0` had them: its arrays as arrays, its `Variable`s as `Variable`s."""
        kept = [
            variable if isinstance(original, Variable) else array_of(variable)
            for original, variable in zip(flatten(self._x0), self.variables, strict=True)
        ]
        return rebuilt(self.tree, kept)

    def go_on(self, optimizer: RMSprop) -> None:
        """Let an optimizer that knows arrays of `x0` go on with their copies."""
        copies = {id(a): b for a, b in zip(flatten(self._x0), self.variables, strict=True) if a is not b}
        known = [parameter.key for parameter in optimizer._state.parameters]
        if any([id(key) in copies for key in known]):
            optimizer.rebind([copies.get(id(key), key) for key in known])


def _plan_of(tree: Tree) -> dict[Any, Any] | None:
    """Return the structure of a tree: of a leaf None, else what is at each key or position, in order."""
    if isinstance(tree, dict):
        return {key: _plan_of(tree[key]) for key in keys_of(tree)}
    return {k: _plan_of(branch) for k, branch in enumerate(tree)} if is_tree(tree) else None


def _collected(values: Any, plan: dict[Any, Any], found: list[Any]) -> bool:
    """Append the leaves of plain dicts and lists, in the fastest way; tell if they have the structure."""
    if type(values) not in (dict, list, tuple) or len(values) != len(plan):
        return False
    for key, branch in plan.items():
        try:
            value = values[key]
        except (KeyError, TypeError):
            return False
        if branch is None:
            found.append(value)
        elif not _collected(value, branch, found):
            return False
    return True


def _check_leaf(leaf: Any, name: str) -> None:
    if not isinstance(leaf, Variable) and not is_array(leaf):
        raise TypeError(
            f"x0 must be an array, a rmsprop.Variable, or lists, tuples or dicts of these; {name!r} of it is a "
            f"{type(leaf).__name__}."
        )
    refuse_subclass(leaf, f"{name!r} of x0")


def _own(leaf: Any, name: str) -> Any:
    """Return a leaf of `x0` as what is to be changed itself."""
    if isinstance(leaf, Variable) or is_updated_in_place(leaf):
        return leaf
    raise TypeError(
        f"overwrite_x0=True needs arrays that are updated in place, as those of NumPy, CuPy and PyTorch, or "
        f"Variables; "
        f"{name!r} of x0 is a {type(leaf).__name__}."
    )


def _copied(leaf: Any, name: str) -> Any:
    """Return a copy of a leaf of `x0` that an optimizer can change."""
    if isinstance(leaf, Variable):
        return copy.deepcopy(leaf)
    if not is_updated_in_place(leaf):
        return Variable(leaf, name=name)
    return copied(as_floats(leaf))


def _check_fits(value: Any, array: Array, what: str) -> None:
    if value is array:
        return
    if not is_array(value) or namespace(value) is not namespace(array):
        raise TypeError(f"{what} must be an array of the same library; given {type(value).__name__}.")
    if tuple(value.shape) != tuple(array.shape):
        raise ValueError(f"{what} has shape {tuple(value.shape)}; expected {tuple(array.shape)}.")
    given, wanted = dtypes.name_of(value.dtype), dtypes.name_of(array.dtype)
    if not dtypes.castable(given, wanted):
        raise TypeError(f"{what} has dtype {given}, which can't be cast to {wanted}.")
