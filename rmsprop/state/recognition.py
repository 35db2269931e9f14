"""Recognition of the variables that are given to an optimizer."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, count
from typing import Any

from rmsprop.arrays.libraries import has_strides, is_array, shared
from rmsprop.backends import Backend, Plans, Replay, backend_of
from rmsprop.state.identity import Original, release
from rmsprop.state.parameters import Parameter, new_parameter, refuse_repetition
from rmsprop.variables.variable import Variable, described


class Parameters:
    """The parameters of an optimizer.

    A `Variable` is recognised by identity, an array also by the memory that it stands for: two views ``w[0]``
    taken in two steps are the same parameter. To know them safely, they are kept alive, until one that is not
    known makes it look who else holds them; see `rmsprop.state.identity`.
    """

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        self._known: dict[int, Parameter] = {}
        self._by_id: dict[int, Parameter] = {}
        self._by_memory: dict[Any, Parameter] = {}
        self._by_original: dict[Any, list[tuple[Original, Parameter]]] = {}
        self.plans = Plans()
        self.captured: list[Any] = []
        """The steps that have been captured, see `rmsprop.step.Captured`; copies have none."""
        for parameter in parameters:
            self.add(parameter)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._known.values())

    def __reduce__(self) -> Any:
        return Parameters, (list(self),)  # identities and addresses mean nothing to a copy

    def add(self, parameter: Parameter) -> bool:
        """Make a parameter known; tell whether it was not."""
        is_new = id(parameter) not in self._known
        parameter.plans = self.plans
        self._known[id(parameter)] = parameter
        if not parameter.is_gone:
            self._by_id[id(parameter.key)] = parameter
            if parameter.is_raw:
                self._by_memory[parameter.backend.memory(parameter.variable.array)] = parameter
        for original in parameter.originals:
            self._by_original.setdefault(original.key, []).append((original, parameter))
        return is_new

    def _rebuild(self, parameters: Iterable[Parameter]) -> None:
        """Know these parameters, and recognise them by what they hold now."""
        self._known = {id(p): p for p in parameters}  # in one piece: other threads may look, see `holds`
        self._by_id, self._by_memory, self._by_original = {}, {}, {}
        self.plans.clear()
        for parameter in self:
            self.add(parameter)

    def name(self, parameters: Iterable[Parameter]) -> None:
        """Give each array that is not yet known a name of its own: ``array``, ``array_1`` ... in their order."""
        new = [p for p in parameters if p.is_raw and id(p) not in self._known]
        if not new:
            return
        taken = {p.variable.name for p in (*self, *(p for p in parameters if not p.is_raw))}
        free = (name for name in chain(["array"], map("array_{}".format, count(1))) if name not in taken)
        for parameter, name in zip(new, free, strict=False):
            parameter.variable.name = name

    def find(self, variable: Any) -> Parameter | None:
        """Return the parameter of a variable or array, if it is known.

        Raises
        ------
        ValueError
            If it is the original of a variable that was copied, and somebody holds the copy.
        """
        return self._by_id.get(id(variable)) or self._recognised(variable)

    def replay_of(self, given: list[Any]) -> Replay | None:
        """Return what takes steps of the list that begins with the same variable, if there is anything."""
        first = given[0] if given else None
        return self.plans.get(id(first[1])) if type(first) is tuple and len(first) == 2 else None

    def _recognised(self, variable: Any) -> Parameter | None:
        """Return the parameter of an array that stands for the same memory as a known one, or of an original."""
        variable = shared(variable)
        is_raw = not isinstance(variable, Variable)
        if not (self._by_memory or self._by_original) or (is_raw and not is_array(variable)):
            return None
        key = backend_of(variable).memory(variable) if is_raw else id(variable)
        known = self._by_memory.get(key) if is_raw else None
        if known is not None and not known.has_moved and _lies_at(known, key):
            return known
        for original, copied in self._by_original.get(key, ()):
            if original.is_of(variable):
                return self._exchanged(copied, variable, is_raw)
        return None

    def _exchanged(self, parameter: Parameter, original: Any, is_raw: bool) -> Parameter:
        """Let an original take the place of its copy, unless somebody holds that."""
        if not parameter.is_gone:
            release(self, _anchors([parameter]))
        if not parameter.is_gone:
            raise ValueError(
                "it was copied together with the optimizer, and the copy is in use. Expected the copy, or "
                "opt.rebind(variables) before, to go on with others."
            )
        parameter.is_its_own = False
        parameter.hold(Variable.around(original, "array") if is_raw else original, is_raw)
        self._rebuild(self)
        return parameter

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
                parameter = new_parameter(variable)
                parameter.plans = self.plans
            parameter.check()
            return parameter
        except (TypeError, ValueError) as error:
            raise type(error)(f"Variable {position} {described(variable)}: {error}") from None

    def holds(self, anchors: AbstractSet[int]) -> bool:
        """Tell whether the variable of one of the parameters is held by what has one of these identities."""
        return any([parameter.anchor_id in anchors for parameter in tuple(self._known.values())])

    def let_go(self, anchors: AbstractSet[int]) -> None:
        """Hold only weakly, until `take_back`, all variables that are held by what has one of these identities."""
        self.plans.clear()
        for parameter in self:
            if parameter.anchor_id in anchors:
                parameter.let_go()

    def take_back(self) -> None:
        """Hold all variables again, but those that are gone."""
        for parameter in self:
            parameter.take_back()
        self._rebuild(self)

    def check_joining(self, given: Sequence[Parameter]) -> None:
        """Raise ``ValueError`` if those of the given parameters that are not known can't be added.

        They must not share memory with each other or with known ones. None of these may be of the same shape and
        dtype, and held by nobody: then it seems to have been replaced.
        """
        new = [p for p in given if id(p) not in self._known]
        if new:
            self._check_replaced(new, given)
            self._check_disjoint([*[p for p in self if not p.is_gone], *new])

    def _check_replaced(self, new: Sequence[Parameter], given: Sequence[Parameter]) -> None:
        kinds = {_kind(p): p for p in reversed(new)}
        alike = {k: p for k, p in enumerate(self) if _kind(p) in kinds}
        held = _anchors(new)  # what new ones were taken from lives as long as they do
        present = [p for p in alike.values() if not p.is_gone and p.anchor_id not in held]
        if present:
            release(self, _anchors(present))
        for number, parameter in alike.items():
            if parameter.is_gone:
                other = kinds[_kind(parameter)]
                raise ValueError(
                    f"Variable {given.index(other)} {other} is not known, and the known variable {number} "
                    f"{parameter} is held by nobody any more. It seems to have been replaced, and its averages "
                    f"would begin anew. Write `x[...] = value` or `out=x` instead of `x = value`, for a Variable "
                    f"`x.assign(value)`; or call opt.rebind(variables) to go on with others, or opt.forget() to "
                    f"begin anew."
                )

    def _check_disjoint(self, parameters: Sequence[Parameter]) -> None:
        """Raise ``ValueError`` if parameters share memory."""
        groups: dict[int, tuple[Backend, list[Parameter]]] = {}
        for parameter in parameters:
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

    def rebind(self, variables: Sequence[Any]) -> None:
        """Put others in the place of all variables, see `rmsprop.RMSprop.rebind`."""
        known = list(self)
        if len(variables) != len(known):
            raise ValueError(f"rebind takes all {len(known)} variables that are known; given {len(variables)}.")
        new = [Parameters().obtain(variable, position) for position, variable in enumerate(variables)]
        refuse_repetition(new)
        self._check_disjoint(new)
        for position, (old, other) in enumerate(zip(known, new, strict=True)):
            if _kind(old) != _kind(other):
                raise ValueError(f"Variable {position} can't be {other}; expected one like {old}.")
            if old.device not in (None, other.device):
                raise ValueError(
                    f"Variable {position} {other} is on {other.device}; expected {old.device}, like its slots."
                )
        for old, other in zip(known, new, strict=True):
            old.originals, old.is_synced, old.is_its_own = (), False, False
            old.hold(other.variable, other.is_raw)
        self._rebuild(known)

    def forget(self, variables: Sequence[Any] | None) -> list[Parameter]:
        """Drop variables, or all that nobody else holds; return what their parameters were."""
        if variables is None:
            release(self, _anchors(self))
            dropped = [p for p in self if p.is_gone]
        else:
            dropped = [self._surely(variable, position) for position, variable in enumerate(variables)]
        identities = set(map(id, dropped))
        self._rebuild([p for p in self if id(p) not in identities])
        return dropped

    def _surely(self, variable: Any, position: int) -> Parameter:
        """Return the parameter of a variable that must be known."""
        parameter = self.find(variable)
        if parameter is None:
            raise ValueError(
                f"Variable {position} {described(variable)} is not known; nothing can be forgotten of it."
            )
        return parameter


def _anchors(parameters: Iterable[Parameter]) -> set[int]:
    """Return the identities of what those hold who hold the variables, as far as that is known."""
    return {p.anchor_id for p in parameters if p.anchor_id}


def _lies_at(parameter: Parameter, key: Any) -> bool:
    """Tell whether the memory of an array is still what it was known by; PyTorch can give tensors another one."""
    array = parameter.variable.array
    return has_strides(array) or parameter.backend.memory(array) == key


def _kind(parameter: Parameter) -> Any:
    """Return what a parameter has in common with one that it could be mistaken for."""
    return parameter.library, parameter.shape, parameter.dtype
