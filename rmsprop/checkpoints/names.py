"""Names of variables in a file."""

from typing import Any

from rmsprop.arrays.libraries import is_array, shared
from rmsprop.backends import is_updated_in_place
from rmsprop.variables import nested
from rmsprop.variables.nested import Tree
from rmsprop.variables.variable import Variable, described


def named(variables: Tree) -> dict[str, Any]:
    """Return variables by the names that they have in a file.

    A name is the path to the variable: keys of dicts and positions in lists, joined by ``/``. In a list, a
    `Variable` goes by its own name. Of several with one name, the later ones get ``_1``, ``_2`` ... appended.

    Parameters
    ----------
    variables : array or Variable, or nested list, tuple or dict of these

    Raises
    ------
    TypeError
        If something else is among them.
    ValueError
        If a name can't be written as UTF-8.

    Examples
    --------
    >>> import numpy as np, rmsprop
    >>> list(named({"a": [np.ones(1), np.ones(2)], "b": rmsprop.Variable(1.0, name="x")}))
    ['a/0', 'a/1', 'b']
    """
    listed = [(name, shared(variable, to_write=True)) for name, variable in nested.named(variables)]
    return {_checked(name, variable): variable for name, variable in listed}


def _checked(name: str, variable: Any) -> str:
    if not isinstance(variable, Variable) and not (is_array(variable) and is_updated_in_place(variable)):
        raise TypeError(
            f"Variable {name!r} {described(variable)}: expected an array that is updated in place, as those of "
            f"NumPy, CuPy and PyTorch, or a rmsprop.Variable."
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"The name {name!r} of a variable can't be saved: {error}.") from None
    return name
