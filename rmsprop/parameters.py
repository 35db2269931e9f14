"""Variables with their slots, and how a variable given to the optimizer is recognised."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import Any

from rmsprop import dtypes
from rmsprop.arrays import has_strides, is_array
from rmsprop.backends import Backend, Replay, backend_of
from rmsprop.variable import Variable


class Plans(dict[Any, Any]):
    """What backends keep about the lists of parameters of one optimizer, from one step to the next.

    The key tells the list. A plan has the length of its list. So that lists in ever another order do not fill the
    memory, the oldest plans are forgotten.

    Attributes
    ----------
    tally : rmsprop.iterations.Tally or None
        What a backend knows of the steps that its devices have left out.
    """

    tally: Any = None

    def keep(self, key: Any, plan: Any) -> None:
        """Keep a plan, instead of any other for this key."""
        self.pop(key, None)
        self[key] = plan
        lengths = list(map(len, self.values()))
        while len(self) > 1 and sum(lengths) > max(PLANNED, 4 * max(lengths)):
            del self[next(iter(self))], lengths[0]


PLANNED = 4_096
"""Length of all lists together, up to which their plans are kept."""


class Parameter:
    """A variable and its slots, as a backend receives them.

    Attributes
    ----------
    variable : Variable
        The caller's own, or one that was put around the caller's array.
    is_raw : bool
        Whether the caller uses the array itself, without a `Variable`.
    slots : dict of str to Variable
        ``"rms"`` and, where the optimizer needs them, ``"momentum"`` and ``"mg"``.
    shape : tuple of int
        Shape of the variable when it was first seen; that of its slots.
    backend : Backend
    dtype : dtype
        Likewise its dtype, in the terms of its library.
    plan : object
        What the backend keeps about this parameter from one step to the next.
    plans : Plans
        What it keeps about lists of parameters; that of their optimizer.
    is_synced : bool
        Whether all replicas have been given the same values; see `rmsprop.distribute`.
    """

    __slots__ = (
        "_strides", "backend", "dtype", "is_raw", "is_synced", "plan", "plans", "shape", "slots", "variable"
    )  # fmt: skip

    def __init__(self, variable: Variable, is_raw: bool, slots: dict[str, Variable] | None = None) -> None:
        self.variable = variable
        self.is_raw = is_raw
        self.slots = {} if slots is None else slots
        self.backend = backend_of(variable.array)
        self.shape = variable.shape
        self.dtype = variable.dtype
        self.plan: Any = None
        self.plans = Plans()
        self.is_synced = False
        self._strides = variable.array.strides if has_strides(variable.array) else None

    def __reduce__(self) -> Any:
        if self.is_raw:  # the array stays the very one that is pickled with the optimizer
            return _of_array, (self.variable.array, self.variable.name, self.slots)
        return Parameter, (self.variable, self.is_raw, self.slots)

    @property
    def key(self) -> Any:
        """The object that the caller passes for this parameter."""
        return self.variable.array if self.is_raw else self.variable

    def check(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` if the variable can't be updated, or is not what it was."""
        array = self.variable.array
        self.backend.check_variable(array)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(f"shape and dtype were {self.shape}, {self.dtype} when it was first given.")
        if self._strides is not None and self._strides != array.strides:
            raise ValueError(f"its strides were {self._strides} when it was first given; now {array.strides}.")

    def __str__(self) -> str:
        return described(self.variable.array if self.is_raw else self.variable)


def _of_array(array: Any, name: str, slots: dict[str, Variable] | None = None) -> Parameter:
    return Parameter(Variable.around(array, name), True, slots)


class Parameters:
    """The parameters of an optimizer.

    A `Variable` is recognised by identity, an array also by the memory that it stands for: two views ``w[0]``
    taken in two steps are the same parameter. To know them safely, they are kept alive.
    """

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        self._by_id: dict[int, Parameter] = {}
        self._by_memory: dict[Any, Parameter] = {}
        self.plans = Plans()
        self.captured: list[Any] = []
        """The steps that have been captured, see `rmsprop.step.Captured`; copies have none."""
        for parameter in parameters:
            self.add(parameter)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._by_id.values())

    def __reduce__(self) -> Any:
        return Parameters, (list(self),)  # identities and addresses mean nothing to a copy

    def add(self, parameter: Parameter) -> None:
        """Make a parameter known."""
        parameter.plans = self.plans
        self._by_id[id(parameter.key)] = parameter
        if parameter.is_raw:
            self._by_memory[parameter.backend.memory(parameter.variable.array)] = parameter

    def name(self, parameters: Iterable[Parameter]) -> None:
        """Give each array that is not yet known a name of its own: ``array``, ``array_1`` ... in their order."""
        new = [p for p in parameters if p.is_raw and id(p.key) not in self._by_id]
        if not new:
            return
        taken = {p.variable.name for p in (*self, *(p for p in parameters if not p.is_raw))}
        free = (name for name in chain(["array"], map("array_{}".format, count(1))) if name not in taken)
        for parameter, name in zip(new, free, strict=False):
            parameter.variable.name = name

    def find(self, variable: Any) -> Parameter | None:
        """Return the parameter of a variable or array, if it is known."""
        return self._by_id.get(id(variable)) or self._recognised(variable)

    def replay_of(self, given: list[Any]) -> Replay | None:
        """Return what takes steps of the list that begins with the same variable, if there is anything."""
        first = given[0] if given else None
        return self.plans.get(id(first[1])) if type(first) is tuple and len(first) == 2 else None

    def _recognised(self, variable: Any) -> Parameter | None:
        """Return the parameter of an array that stands for the same memory as a known one."""
        if not self._by_memory or not is_array(variable):
            return None
        return self._by_memory.get(backend_of(variable).memory(variable))

    def obtain(self, variable: Any, position: int = 0) -> Parameter:
        """Return the parameter of a variable, known or new; a new one has no slots and is not yet known.

        Raises
        ------
        TypeError, ValueError
            If the variable can't be updated, with its position among those given.
        """
        try:
            parameter = self.find(variable)
            if parameter is None:
                parameter = _new_parameter(variable)
                parameter.plans = self.plans
            parameter.check()
            return parameter
        except (TypeError, ValueError) as error:
            raise type(error)(f"Variable {position} {described(variable)}: {error}") from None

    def check_disjoint(self, new: Sequence[Parameter]) -> None:
        """Raise ``ValueError`` if new parameters share memory with each other or with known ones."""
        groups: dict[int, tuple[Backend, list[Parameter]]] = {}
        for parameter in [*self, *new] if new else ():
            groups.setdefault(id(parameter.backend), (parameter.backend, []))[1].append(parameter)
        for backend, group in groups.values():
            overlap = backend.overlapping([parameter.variable.array for parameter in group])
            if overlap is None:
                continue
            first, second = (group[i] for i in overlap)
            if first is second:
                raise ValueError(f"Variable {first} has elements that share memory with each other.")
            raise ValueError(
                f"Variables {first} and {second} share memory, so that one's update would change the other."
            )


def refuse_repetition(parameters: Sequence[Parameter]) -> None:
    """Raise ``ValueError``, naming the variable that is given twice."""
    seen: dict[int, int] = {}
    for position, parameter in enumerate(parameters):
        first = seen.setdefault(id(parameter.key), position)
        if first != position:
            raise ValueError(f"Variable {position} {parameter} is the same as variable {first}.")


def _new_parameter(variable: Any) -> Parameter:
    is_raw = not isinstance(variable, Variable)
    if is_raw and not is_array(variable):
        raise TypeError("expected an array or a rmsprop.Variable.")
    parameter = _of_array(variable, "array") if is_raw else Parameter(variable, False)
    array = parameter.variable.array
    if dtypes.name_of(array.dtype) not in dtypes.COMPUTE:
        raise TypeError(f"dtype {array.dtype} can't be optimised; expected one of {', '.join(dtypes.COMPUTE)}.")
    if is_raw:
        parameter.backend.memory(array)
    return parameter


def described(variable: Any) -> str:
    """Return how messages call a variable: by its name, dtype and shape, or what was given instead of one."""
    if not isinstance(variable, Variable) and not is_array(variable):
        return f"({type(variable).__name__} {str(variable)[:40]!r})"
    name = f"{variable.name!r}, " if isinstance(variable, Variable) else ""
    return f"({name}{dtypes.name_of(variable.dtype)}, shape {tuple(variable.shape)})"


def flatten(nested: Any) -> list[Any]:
    """Return the leaves of nested iterables, of dicts by their sorted keys, as in Keras."""
    if isinstance(nested, dict):
        nested = [nested[key] for key in sorted(nested)]
    if isinstance(nested, Variable | str) or is_array(nested) or not isinstance(nested, Iterable):
        return [nested]
    return [leaf for item in nested for leaf in flatten(item)]
