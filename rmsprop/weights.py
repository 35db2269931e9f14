"""The state of an optimizer: its iteration count and the slots of each variable."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np

from rmsprop import dtypes
from rmsprop.arrays import (
    Array,
    as_beside,
    checked_numbers,
    is_array,
    moved_beside,
    namespace,
    on_device,
    place_beside,
    refuse_subclass,
    to_numpy,
)
from rmsprop.formula import SLOTS
from rmsprop.gradients import report_misses
from rmsprop.iterations import Iterations, check_count
from rmsprop.known import Parameters
from rmsprop.locks import Unchanged, give_lock, locked
from rmsprop.loss_scale import LossScale
from rmsprop.parameters import Parameter, described, flatten, refuse_repetition
from rmsprop.variable import Variable, array_of

INITIALIZERS: dict[str, float] = {"zeros": 0.0, "ones": 1.0}


class Weights:
    """What an optimizer remembers between steps; the base of `rmsprop.RMSprop`.

    See `rmsprop.parameters.Parameters` for how variables are recognised.
    """

    name: Any
    _strategy: Any = None
    """The `rmsprop.distribute.Strategy` of the scope that the optimizer was made in."""
    _waiting: Any = None
    """The `rmsprop.checkpoints.records.Checkpoint` that was loaded, until there are variables for it."""
    _claim: Callable[[Sequence[Parameter], Any], None]
    """Gives parameters what waits for them; see `rmsprop.checkpoints.restoring.claim`."""
    _lock: Any
    """Held while anything changes; see `rmsprop.locks`."""
    _is_stepping = False

    def __init__(self) -> None:
        give_lock(self)
        self._iterations: Iterations = Iterations(np.zeros((), np.int64))
        self._slots: list[Variable] = []  # in order of creation
        self._slot_names: list[str] = []
        self._parameters = Parameters()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy state and variables; these in the memo, so that whoever else copies them has the same copies."""
        twin = memo[id(self)] = type(self).__new__(type(self))
        with self._lock:
            twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin

    def __copy__(self) -> NoReturn:
        raise TypeError("an optimizer and a shallow copy of it would share their state; use copy.deepcopy.")

    def __getstate__(self) -> dict[str, Any]:
        of_this_process = "_lock", "_is_stepping"
        with self._lock:
            state = {name: value for name, value in self.__dict__.items() if name not in of_this_process}
            return {**state, "_unchanged": Unchanged(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        del self.__dict__["_unchanged"]
        give_lock(self)

    def _create_slots(self, parameters: Sequence[Parameter]) -> None:
        """Create the slots that are missing, and make the parameters known, all or none of them."""
        if self._waiting is not None:
            self._claim(parameters, [p.key for p in parameters])
        self._parameters.name(parameters)
        needed = self._needed_slots()
        missing = [(p, name) for name in needed for p in parameters if name not in p.slots]
        created = [self._zeros(parameter, name) for parameter, name in missing]
        for parameter in parameters:
            self._parameters.add(parameter)
        for (parameter, name), slot in zip(missing, created, strict=True):
            self._add(parameter, name, slot)

    def _zeros(self, parameter: Parameter, name: str) -> Variable:
        array = parameter.variable.array
        is_sharded = getattr(self._strategy, "shard_state", False)
        if self.state_dtype is not None:
            if is_sharded:
                raise ValueError(f"state_dtype={self.state_dtype!r} can't be used with shard_state=True.")
            return self._compact(parameter, name)
        dtype = SLOTS[name].dtype(dtypes.name_of(array.dtype), self.complex_as_real)
        if is_sharded:
            slot: Variable = self._strategy._slot(parameter, dtype, self._label(parameter, name))
            return slot
        return self._slot(parameter, name, parameter.backend.zeros(array, dtype))

    def _compact(self, parameter: Parameter, name: str) -> Variable:
        """Return a slot that is kept in `state_dtype`."""
        backend = parameter.backend
        if not backend.has_compact_slots or dtypes.name_of(parameter.dtype) not in ("float32", "float64"):
            library = namespace(parameter.variable.array).__name__.removeprefix("array_api_compat.")
            raise TypeError(
                f"Variable {parameter}: state_dtype={self.state_dtype!r} needs an array of NumPy of float32 or "
                f"float64; given a {dtypes.name_of(parameter.dtype)} array of {library}."
            )
        label = self._label(parameter, name)
        slot: Variable = backend.compact_slot(parameter.variable.array, name, self.state_dtype, label)
        return slot

    def _slot(self, parameter: Parameter, name: str, array: Array) -> Variable:
        return Variable.around(array, self._label(parameter, name), trainable=False)

    def _label(self, parameter: Parameter, name: str) -> str:
        return f"{self.name}/{parameter.variable.name}/{name}"

    def _add(self, parameter: Parameter, name: str, slot: Variable) -> None:
        parameter.slots[name] = slot
        self._list(name, slot)

    def _list(self, name: str, slot: Variable) -> None:
        self._slots.append(slot)
        if name not in self._slot_names:
            self._slot_names.append(name)

    complex_as_real: Any
    state_dtype: Any

    def _needed_slots(self) -> tuple[str, ...]:
        """Return the names of the slots that each variable needs, in order."""
        raise NotImplementedError

    @locked
    def build(self, var_list: Any) -> None:
        """Create the slots of variables before the first step, so that weights can be restored.

        Parameters
        ----------
        var_list : array or Variable, or nested list, tuple or dict of these
            In the order in which `set_weights` will give their slots.

        Raises
        ------
        TypeError, ValueError
            If a variable can't be optimised; nothing has changed then.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> w = np.ones(3)
        >>> opt = rmsprop.RMSprop()
        >>> opt.build([w])
        >>> opt.set_weights([np.array(7), np.full(3, 0.5)])
        >>> int(opt.iterations), opt.get_slot(w, "rms").numpy()
        (7, array([0.5, 0.5, 0.5]))
        """
        if isinstance(var_list, Iterator):
            var_list = list(var_list)
        parameters = [self._parameters.obtain(v, i) for i, v in enumerate(flatten(var_list))]
        refuse_repetition(parameters)
        self._parameters.check_joining(parameters)
        if self._waiting is not None:
            self._claim(parameters, var_list)
        self._create_slots(parameters)

    @property
    def iterations(self) -> Variable:
        """The number of steps so far, an int64 scalar `Variable`.

        It can be replaced, by a `Variable` or a number from 0 to 2**62, as long as there are no slots. Later,
        ``assign`` to it.
        """
        return self._iterations

    @iterations.setter
    @locked
    def iterations(self, value: Any) -> None:
        if self._slots:
            raise RuntimeError(
                "Cannot set `iterations` to a new Variable after the optimizer's weights have been created; "
                "use opt.iterations.assign(n)."
            )
        if not isinstance(value, Variable):
            check_count(checked_numbers(value, "iterations"), "iterations")
            value = Variable(value, trainable=False, name="iterations", dtype=np.int64)
        if value.shape or value.dtype != np.int64 or not value.array.flags.writeable:
            raise ValueError(f"iterations must be an int64 scalar; given {value!r}.")
        check_count(value.array, "iterations")
        loss_scale = self._iterations.loss_scale
        self._iterations = Iterations(value.array, value.name)
        self._attach(loss_scale)

    def _attach(self, loss_scale: LossScale | None) -> None:
        """Let a loss scale, and no other, follow which steps are taken."""
        if self._iterations.loss_scale is not None:
            self._iterations.loss_scale._iterations = None
        self._iterations.loss_scale = loss_scale
        if loss_scale is not None:
            loss_scale._iterations = self._iterations

    @property
    def skipped(self) -> int:
        """The number of steps that were left out, with ``nonfinite="skip"``, for gradients that were not finite.

        To read it waits for a GPU, as it does to read `iterations`.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(nonfinite="skip"), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, np.inf]), w)])
        >>> opt.skipped, int(opt.iterations), w
        (1, 0, array([1., 1.]))
        """
        self._iterations.settle()
        return self._iterations.skipped

    @property
    def weights(self) -> list[Variable]:
        """The iteration count and all slots: first ``rms`` of each variable, then ``momentum``, then ``mg``.

        Slots of other names follow. Variables are in the order in which they became known.
        """
        return [self._iterations, *(slot for _, slot in self._ordered_slots())]

    def _ordered_slots(self) -> list[tuple[str, Variable]]:
        """Return the names of slots with the slots of all variables, in the order of `weights`."""
        names = dict.fromkeys([*SLOTS, *self._slot_names])
        owners: Iterable[Any] = self._parameters if self._waiting is None else self._waiting.owners
        return [(name, owner.slots[name]) for name in names for owner in owners if name in owner.slots]

    def variables(self) -> list[Variable]:
        """Return `weights`."""
        return self.weights

    @locked
    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Return NumPy copies of the `weights`, in the order of Keras.

        Raises
        ------
        ValueError
            Once, if a GPU found rows out of range in a sparse gradient of an earlier step.

        Examples
        --------
        >>> import numpy as np, rmsprop
        >>> opt, w = rmsprop.RMSprop(rho=0.5), np.ones(2)
        >>> _ = opt.apply_gradients([(np.array([1.0, 2.0]), w)])
        >>> opt.get_weights()
        [array(1), array([0.5, 2. ])]
        """
        weights = [to_numpy(weight.array) for weight in self.weights]
        for parameter in self._parameters:
            report_misses(parameter)
        return weights

    @locked
    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace the `weights`, for instance by those of an optimizer in Keras.

        Parameters
        ----------
        weights : sequence of array_like
            As `get_weights` returns them. If the iteration count is missing, it becomes 0, as in Keras.

        Raises
        ------
        ValueError
            If number, shapes or dtypes do not fit. Nothing has changed then.
        TypeError
            If `weights` is no sequence of arrays of numbers, likewise.
        """
        if not isinstance(weights, Iterable) or isinstance(weights, str | bytes | Mapping):
            raise TypeError(f"set_weights takes a sequence of arrays; given {weights!r}.")
        given = [_as_numpy(array_of(weight), position) for position, weight in enumerate(weights)]
        if len(given) == len(self._slots):
            given = [np.zeros((), np.int64), *given]
        named = [("iterations", self._iterations), *self._ordered_slots()]
        if len(given) != len(named):
            raise ValueError(
                f"set_weights was given {len(given)} weights, but the optimizer {self.name!r} has "
                f"{len(named)}. Before the first step, call build(var_list) to create its slots."
            )
        converted = [_fitting(new, name, weight) for new, (name, weight) in zip(given, named, strict=True)]
        for (_, weight), new in zip(named, converted, strict=True):
            weight.assign(new)
        for parameter in self._parameters:
            parameter.is_synced = False

    def get_slot_names(self) -> list[str]:
        """Return the names of the slots, in order of creation."""
        return list(self._slot_names)

    @locked
    def get_slot(self, var: Any, slot_name: str) -> Variable:
        """Return a slot of a variable.

        Parameters
        ----------
        var : array or Variable
        slot_name : {"rms", "momentum", "mg"} or a name given to `add_slot`

        Raises
        ------
        KeyError
            If the variable, or the slot, does not exist.
        ValueError
            If the variable was copied together with the optimizer, and its copy is in use.
        """
        if not isinstance(slot_name, str):
            raise TypeError(f"slot_name must be a string; given {slot_name!r}.")
        parameter = self._parameters.find(var)
        if parameter is None:
            raise KeyError(f"the optimizer has no slots for the variable {described(var)}; build() creates them.")
        if slot_name not in parameter.slots:
            raise KeyError(f"there is no slot {slot_name!r}; there are {sorted(parameter.slots)}.")
        return parameter.slots[slot_name]

    @locked
    def add_slot(self, var: Any, slot_name: str, initializer: Any = "zeros", shape: Any = None) -> Variable:
        """Create a slot for a variable, or return the one there is.

        Parameters
        ----------
        var : array or Variable
        slot_name : str
        initializer : {"zeros", "ones"}, callable or array_like, default "zeros"
            A callable gets ``shape`` and ``dtype``. An array is the initial value itself.
        shape : tuple of int, optional
            Defaults to the variable's, as it must be for the slots that steps use; not used with an array as
            `initializer`.

        Returns
        -------
        Variable

        Raises
        ------
        ValueError
            If `initializer` is an unknown name, or the shape can't be that of the slot.
        """
        if not isinstance(slot_name, str):
            raise TypeError(f"slot_name must be a string; given {slot_name!r}.")
        parameter = self._parameters.obtain(var)
        if slot_name in parameter.slots:
            return parameter.slots[slot_name]
        if self._waiting is not None:
            raise RuntimeError("the loaded state waits for its variables: call build(var_list) before add_slot.")
        self._parameters.check_joining([parameter])
        self._parameters.name([parameter])
        shape = parameter.shape if shape is None else _checked_shape(shape)
        # Slots that steps use have to have the shape, dtype and layout that these expect.
        zeros = self._zeros(parameter, slot_name) if slot_name in SLOTS else None
        dtype = parameter.dtype if zeros is None else zeros.dtype
        with on_device(parameter.variable.array):
            value = initial_value(initializer, shape, dtype, parameter.variable.array)
        if slot_name in SLOTS:
            SLOTS[slot_name].check(to_numpy(value), f"slot {slot_name!r}")
        slot = self._slot(parameter, slot_name, value) if zeros is None else zeros.assign(value)
        self._parameters.add(parameter)
        self._add(parameter, slot_name, slot)
        return slot

    def add_weight(
        self,
        name: str,
        shape: Any,
        dtype: Any = None,
        initializer: Any = "zeros",
        trainable: bool | None = None,
        synchronization: str = "auto",
        aggregation: str = "none",
    ) -> Variable:
        """Return a new NumPy `Variable`, which is not among the `weights`.

        Parameters
        ----------
        name : str
        shape : tuple of int
        dtype : dtype, default float32
        initializer : as in `add_slot`
        trainable : bool, optional
            Defaults to True, with `synchronization` "on_read" to False.
        synchronization, aggregation : str
            How replicas would share the variable. "on_read" excludes `trainable`.

        Raises
        ------
        ValueError
            If `trainable` is True with `synchronization` "on_read", or `initializer` is unknown.
        """
        on_read = synchronization.lower() == "on_read"
        if trainable and on_read:
            raise ValueError("synchronization 'on_read' needs trainable=False; given trainable=True.")
        dtype = np.dtype(np.float32 if dtype is None else dtype)
        value = initial_value(initializer, tuple(shape), dtype, np.zeros(()))
        return Variable.around(value, name, trainable=not on_read if trainable is None else trainable)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    numbers = [*shape] if isinstance(shape, Iterable) else [shape]
    if not isinstance(shape, Iterable) or not all(isinstance(n, int | np.integer) for n in numbers):
        raise TypeError(f"shape must be a tuple of whole numbers; given {shape!r}.")
    if min(numbers, default=0) < 0:
        raise ValueError(f"shape must have no negative numbers; given {shape!r}.")
    return tuple(map(int, numbers))


def initial_value(
    initializer: str | Callable[..., Any] | Any, shape: tuple[int, ...], dtype: Any, like: Array
) -> Array:
    """Return a new array as an initializer describes it, of the library and on the device of another one."""
    xp = namespace(like)
    if isinstance(initializer, str):
        if initializer not in INITIALIZERS:
            raise ValueError(f"Unknown initializer: {initializer!r}; expected one of {sorted(INITIALIZERS)}.")
        array = xp.full(shape, INITIALIZERS[initializer], dtype=dtype, device=place_beside(like))
    else:
        value = initializer(shape=shape, dtype=dtype) if callable(initializer) else initializer
        if not is_array(value) and np.asarray(value).dtype.kind not in "biufc":
            raise TypeError(f"initializer must give an array or numbers; given {value!r}.")
        array = as_beside(value, like, copy=True)
        if dtypes.is_complex(dtypes.name_of(array.dtype)) and not dtypes.is_complex(dtypes.name_of(dtype)):
            raise TypeError(f"initializer must give real numbers; given {value!r}.")
        array = xp.astype(array, dtype, copy=False)
    return moved_beside(array, like) if array.shape == like.shape else array


def _as_numpy(weight: Any, position: int) -> np.ndarray[Any, Any]:
    refuse_subclass(weight, f"Weight {position}")
    try:
        return to_numpy(weight)
    except ValueError:
        raise TypeError(f"Weight {position} must be an array; given lists of different lengths.") from None


def _fitting(new: np.ndarray[Any, Any], name: str, weight: Variable) -> np.ndarray[Any, Any]:
    """Return a new value that can be assigned without fail to a weight, of which `name` says what it is."""
    if new.shape != weight.shape:
        raise ValueError(f"Weight {weight.name!r} has shape {weight.shape}; given one of shape {new.shape}.")
    wanted = dtypes.name_of(weight.dtype)
    is_numeric = new.dtype.kind in "biufc" or new.dtype.name in dtypes.COMPUTE
    if not is_numeric or (new.dtype.kind == "c" and not dtypes.is_complex(wanted)):
        raise ValueError(f"Weight {weight.name!r} has dtype {wanted}; given one of dtype {new.dtype}.")
    if isinstance(weight, Iterations):
        check_count(new, f"Weight {weight.name!r}")
    elif name in SLOTS:
        SLOTS[name].check(new, f"Weight {weight.name!r}")
    return new
