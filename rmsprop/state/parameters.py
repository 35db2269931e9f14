"""Variables with their slots."""

import copy
import weakref
from collections.abc import Sequence
from typing import Any

from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Absent, device, has_strides, is_array, shared
from rmsprop.backends import Plans, backend_of
from rmsprop.formula import NEUTRAL, Multipliers
from rmsprop.state.identity import Away, Original
from rmsprop.variables.variable import Variable, described


class Parameter:
    """A variable and its slots, as a backend receives them.

    Parameters
    ----------
    variable : Variable
    is_raw : bool
    slots : dict of str to Variable, optional
    is_its_own : bool, default False
        Whether the array is known to be the only use of its memory, since it was unpickled.
    multipliers : Multipliers, optional
        What the learning rate and weight decay are multiplied by.

    Attributes
    ----------
    variable : Variable
        The caller's own, or one that was put around the caller's array.
    is_raw : bool
        Whether the caller uses the array itself, without a `Variable`.
    slots : dict of str to Variable
        See `rmsprop.formula.SLOTS`.
    shape : tuple of int
        Shape of the variable when it was first seen; that of its slots.
    backend : Backend
    library : str
        The module that the class of its arrays is from.
    dtype : dtype
        Likewise its dtype, in the terms of its library.
    plan : object
        What the backend keeps about this parameter from one step to the next. It is dropped when it is to be found
        out who else holds the variable.
    notes : object
        What the backend keeps in any case, which must not keep the variable alive.
    plans : Plans
        What it keeps about lists of parameters; that of their optimizer.
    is_synced : bool
        Whether all replicas have been given the same values; see `rmsprop.distribute`.
    anchor : object or None
        What everybody holds who can give the variable: the `Variable`, or the array that owns the memory. None if
        that can't be told.
    originals : tuple of rmsprop.state.identity.Original
        The variables that this one is a copy of, or a copy of a copy.
    """

    __slots__ = (
        "_address", "_away", "_strides", "anchor", "backend", "dtype", "is_its_own", "is_raw", "is_synced",
        "library", "multipliers", "notes", "originals", "plan", "plans", "shape", "slots", "variable"
    )  # fmt: skip

    def __init__(
        self,
        variable: Variable,
        is_raw: bool,
        slots: dict[str, Variable] | None = None,
        is_its_own: bool = False,
        multipliers: Multipliers = NEUTRAL,
    ) -> None:
        self.slots, self.multipliers = {} if slots is None else slots, multipliers
        self.shape, self.dtype = variable.shape, variable.dtype
        # A variable that is gone has slots, of its backend.
        like = variable.array if not isinstance(variable.array, Absent) else next(iter(self.slots.values())).array
        self.backend = backend_of(like)
        self.library = type(like).__module__
        self.plan: Any = None
        self.notes: Any = None
        self.plans = Plans()
        self.is_synced = False
        self.originals: tuple[Original, ...] = ()
        self.is_its_own = is_its_own
        self._away: Away | None = None
        self.hold(variable, is_raw)

    def __reduce__(self) -> Any:
        variable = self.variable
        if self.is_gone:  # devices of some libraries can't be pickled
            variable = Variable.around(variable.array._replace(device=None), variable.name)
        elif self.is_raw:  # the array stays the very one that is pickled with the optimizer
            return of_array, (variable.array, variable.name, self.slots, True, self.multipliers)
        return Parameter, (variable, self.is_raw, self.slots, True, self.multipliers)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Parameter":
        variable, owner = self._copied(memo)
        is_same = not self.is_gone and (variable.array if self.is_raw else variable) is self.key
        slots, is_its_own = copy.deepcopy(self.slots, memo), self.is_its_own and is_same
        twin = Parameter(variable, self.is_raw, slots, is_its_own, self.multipliers)
        twin.anchor = twin.anchor if owner is None else owner
        twin.originals = self.originals if is_same or self.is_gone else (original_of(self), *self.originals)
        return twin

    def _copied(self, memo: dict[int, Any]) -> tuple[Variable, Any]:
        """Return a copy of the variable; that of a view is one of a copy of its owner, which is returned, too."""
        anchor, array = self.anchor, self.variable.array
        if self.is_gone:
            return self.variable, None
        if not self.is_raw:
            return copy.deepcopy(self.variable, memo), None
        owner = None
        if anchor is not None and anchor is not array and id(array) not in memo:
            owner = copy.deepcopy(anchor, memo)
            if type(owner) is type(anchor) and owner.strides == anchor.strides:
                memo[id(array)] = self.backend.view(owner, self.backend.place(array, anchor))
                memo.setdefault(id(memo), []).append(array)  # lest another one gets its identity
            else:
                owner = None
        return Variable.around(copy.deepcopy(array, memo), self.variable.name), owner

    @property
    def key(self) -> Any:
        """The object that the caller passes for this parameter."""
        return self.variable.array if self.is_raw else self.variable

    @property
    def device(self) -> Any:
        """The device that the variable is on, or was on when it was gone; None if that is not known any more."""
        array = self.variable.array
        return array.device if isinstance(array, Absent) else device(array)

    @property
    def anchor_id(self) -> int:
        """The identity of the anchor, 0 if there is none."""
        return 0 if self.anchor is None else id(self.anchor)

    @property
    def is_gone(self) -> bool:
        """Whether nobody held the variable any more, so that only its slots are left."""
        return isinstance(self.variable.array, Absent)

    def hold(self, variable: Variable, is_raw: bool, anchor: Any = None) -> None:
        """Be the parameter of a variable, which has the same shape and dtype as any before."""
        self.variable, self.is_raw, self.plan = variable, is_raw, None
        array = variable.array
        is_there = not self.is_gone and has_strides(array)
        self._strides = array.strides if is_there else None
        self._address = self.backend.address(array) if is_there else None
        if is_raw and anchor is None and not self.is_gone:
            anchor = self.backend.owner(array, self.is_its_own)
        self.anchor: Any = anchor if is_raw or self.is_gone else variable

    def let_go(self) -> None:
        """Hold the variable only weakly, until `take_back`."""
        array, anchor = self.variable.array, self.anchor
        place = self.backend.place(array, anchor) if self.is_raw and array is not anchor else None
        self._away = Away(weakref.ref(anchor), weakref.ref(self.key), place, self.variable.name, device(array))
        self.variable, self.anchor, self.plan = _away, None, None

    def take_back(self) -> None:
        """Hold the variable again; if it is gone, something of the same shape takes its place."""
        if self._away is None:
            return
        away, anchor, key = self._away, self._away.anchor(), self._away.key()
        if anchor is None:
            self.hold(Variable.around(Absent(self.shape, self.dtype, away.device), away.name), self.is_raw)
        elif self.is_raw:
            array = self.backend.view(anchor, away.place) if key is None else key
            self.hold(Variable.around(array, away.name), True, anchor)
        else:
            self.hold(anchor, False)
        self._away = None

    @property
    def has_moved(self) -> bool:
        """Whether the memory of the array is no longer where it was, by ``resize``."""
        return self._address is not None and self._address != self.backend.address(self.variable.array)

    def check(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` if the variable can't be updated, or is not what it was."""
        array = self.variable.array
        self.backend.check_variable(array)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(f"shape and dtype were {self.shape}, {self.dtype} when it was first given.")
        if self._strides is not None and self._strides != array.strides:
            raise ValueError(f"its strides were {self._strides} when it was first given; now {array.strides}.")
        if self._address is not None and self.has_moved:
            raise ValueError("its memory was moved since it was first given, by resize.")

    def report_misses(self) -> None:
        """Raise ``ValueError`` for rows out of range in gradients of earlier steps, as far as these are known."""
        try:
            self.backend.report_misses(self)
        except ValueError as error:
            raise ValueError(f"Gradient of variable {self}: {error}") from None

    def __str__(self) -> str:
        return described(self.key)


def of_array(
    array: Any,
    name: str,
    slots: dict[str, Variable] | None = None,
    is_its_own: bool = False,
    multipliers: Multipliers = NEUTRAL,
) -> Parameter:
    """Return a parameter for an array that the caller uses without a `Variable`."""
    return Parameter(Variable.around(array, name), True, slots, is_its_own, multipliers)


def original_of(parameter: Parameter) -> Original:
    """Return what remembers the variable of a parameter."""
    key = parameter.key
    found_by = parameter.backend.memory(key) if parameter.is_raw else id(key)
    return Original(found_by, weakref.ref(key if parameter.anchor is None else parameter.anchor))


_away = Variable.around(Absent((), None, None), "away")


def refuse_repetition(parameters: Sequence[Parameter]) -> None:
    """Raise ``ValueError``, naming the variable that is given twice."""
    seen: dict[int, int] = {}
    for position, parameter in enumerate(parameters):
        first = seen.setdefault(id(parameter.key), position)
        if first != position:
            raise ValueError(f"Variable {position} {parameter} is the same as variable {first}.")


def new_parameter(variable: Any) -> Parameter:
    """Return the parameter of a variable that is not known; `TypeError` if it can't be one."""
    variable = shared(variable, to_write=True)
    is_raw = not isinstance(variable, Variable)
    if is_raw and not is_array(variable):
        raise TypeError("expected an array or a rmsprop.Variable.")
    parameter = of_array(variable, "array") if is_raw else Parameter(variable, False)
    array = parameter.variable.array
    if dtypes.name_of(array.dtype) not in dtypes.COMPUTE:
        raise TypeError(f"dtype {array.dtype} can't be optimised; expected one of {', '.join(dtypes.COMPUTE)}.")
    if is_raw:
        parameter.backend.memory(array)
    return parameter
