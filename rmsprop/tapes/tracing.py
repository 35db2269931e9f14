"""Traced values: what a loss over NumPy arrays computes with in the block of a `GradientTape`, by HIPS autograd.

Inside the block they are boxes of autograd's. After it, they are the numbers that they have. What autograd does
for others stays as it is: none of its classes is changed, and the table by which it finds the class of a box names
ours only while a block is open, and only for what a tape records.
"""

import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np
from autograd.core import VJPNode, primitive_vjps
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import box_type_mappings, box_types, notrace_primitives, trace_stack

from rmsprop.arrays.libraries import DType, Host
from rmsprop.tapes.following import CLOSED, anp, applied, has_open, is_open, settled, unknown
from rmsprop.tapes.gathering import reading_of
from rmsprop.variables.operators import value_of
from rmsprop.variables.variable import Variable


class Block:
    """The ``with`` block of a tape.

    Attributes
    ----------
    trace : int
        Number of the trace in autograd while the block records, else `CLOSED`.
    """

    __slots__ = ("trace",)

    def __init__(self) -> None:
        trace_stack.top += 1
        self.trace: int = trace_stack.top
        _Boxes.opened()

    def close(self) -> None:
        """Make all that was traced in the block plain numbers."""
        self.trace = CLOSED
        trace_stack.top -= 1
        _Boxes.closed()


class Record(VJPNode):  # type: ignore[misc]  # autograd has no types
    """What a tape remembers of an operation: how to differentiate it, and in which block it took place."""

    __slots__ = ("block",)
    parents: Any
    vjp: Any

    def __init__(
        self, value: Any, fun: Any, args: Any, kwargs: Any, argnums: tuple[int, ...], parents: tuple[Any, ...]
    ) -> None:
        self.parents, self.block = parents, parents[0].block
        own = reading_of(fun)
        vjp = own(not parents[0].parents, args, kwargs) if own is not None and argnums == (0,) else None
        if vjp is None:
            maker = primitive_vjps.get(fun)
            if maker is None:
                raise NotImplementedError(unknown(fun))
            vjp = maker(argnums, value, args, kwargs)
        self.vjp = vjp


class Traced(ArrayBox):  # type: ignore[misc]
    """An array or a number that a `GradientTape` follows."""

    __slots__ = ()
    _value: Any
    _node: Any

    def __init__(self, value: Any, trace: int, node: Record) -> None:
        self._value, self._node = value, node

    @classmethod
    def root(cls, value: Any, block: Block) -> "Traced":
        """Return the traced value of a source."""
        node = Record.new_root()
        node.block = block
        return cls(value, block.trace, node)

    @property
    def _trace(self) -> int:
        return self._node.block.trace  # type: ignore[no-any-return]

    def _plain(self) -> Any:
        """Return the number, if to do so can't lose a gradient."""
        if self._node.block.trace != CLOSED:
            raise TypeError(
                "a traced value can't become a plain number inside of its GradientTape or loss, which would lose "
                "its gradient: do so after the block. For a constant, there is autograd.tracer.getval."
            )
        return self._value

    def __float__(self) -> float:
        return float(self._plain())

    def __int__(self) -> int:
        return int(self._plain())

    def __complex__(self) -> complex:
        return complex(self._plain())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self._plain(), digits)

    def __str__(self) -> str:
        return str(self._value) if self._node.block.trace == CLOSED else f"<traced {self._value}>"

    def __repr__(self) -> str:
        return repr(self._value) if self._node.block.trace == CLOSED else f"<traced {self._value!r}>"

    def __format__(self, specification: str) -> str:
        return format(self._plain(), specification) if specification else str(self)

    def __reduce__(self) -> Any:
        return _itself, (self._plain(),)

    def item(self, *index: Any) -> Any:
        """Return an element as a number of Python's."""
        return self._plain().item(*index)

    def tolist(self) -> Any:
        """Return the numbers in nested lists."""
        return self._plain().tolist()

    def numpy(self) -> Host:
        """Return a copy as an array."""
        return np.array(self._plain())

    @property
    def __array__(self) -> Any:
        if self._node.block.trace != CLOSED:  # NumPy keeps boxes as objects, whose sum still has a gradient
            raise AttributeError("a traced value can't become a plain array inside of its GradientTape or loss.")
        return partial(_copied, self._value)

    real = property(lambda self: anp.real(self))
    imag = property(lambda self: anp.imag(self))

    def conj(self) -> Any:
        """Return the complex conjugate."""
        return anp.conj(self)

    conjugate = conj

    def dot(self, other: Any) -> Any:
        """Return the product of two arrays."""
        return anp.dot(self, other)

    def copy(self) -> Any:
        """Return the value itself, which nothing can change."""
        return self if self._node.block.trace != CLOSED else self._value.copy()

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        """Return the array in another dtype."""
        is_closed = self._node.block.trace == CLOSED
        return np.asarray(self._value).astype(*args, **kwargs) if is_closed else super().astype(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        key = value_of(key)
        if type(key) is list and np.asarray(key).dtype == bool:  # which autograd would take for integers
            key = np.asarray(key)
        return self._value[key] if self._node.block.trace == CLOSED else ArrayBox.__getitem__(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise TypeError(
            "a traced value can't be changed in place: in a loss, make a new one by functions of autograd.numpy, "
            "such as where and concatenate."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any([_comes_first(x) for x in inputs]):
            return NotImplemented
        inputs, kwargs = settled(inputs), settled(kwargs)
        if not any([is_open(x) for x in (*inputs, *kwargs.values())]):
            return getattr(ufunc, method)(*inputs, **kwargs)
        if "out" in kwargs or method == "at":
            raise TypeError(f"numpy.{ufunc.__name__} can't write a traced value into an array: leave out `out`.")
        if method != "__call__":
            raise TypeError(f"GradientTape can't follow numpy.{ufunc.__name__}.{method}.")
        return applied(ufunc, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = settled(args), settled(kwargs)
        if not has_open((args, kwargs)):
            return function(*args, **kwargs)
        return applied(function, args, kwargs)


def _of_operators(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return an operator of `Traced` values that lets arrays around arrays, such as xarray's, come first."""
    return lambda self, other: NotImplemented if _comes_first(other) else operator(self, other)


for _name in ("add", "sub", "mul", "truediv", "mod", "pow", "matmul"):
    setattr(Traced, f"__{_name}__", _of_operators(getattr(ArrayBox, f"__{_name}__")))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(Traced, f"__{_name}__", _of_operators(getattr(ArrayBox, f"__{_name}__")))


def _comes_first(x: object) -> bool:
    """Tell whether something decides for itself what becomes of a ufunc."""
    kind: Any = type(x)
    return kind not in (float, int, Traced, np.ndarray) and _decides(kind)


@cache
def _decides(kind: Any) -> bool:
    own = getattr(kind, "__array_ufunc__", np.ndarray.__array_ufunc__)
    return own is not np.ndarray.__array_ufunc__ and kind not in box_types


def _copied(value: Any, dtype: DType = None, copy: bool | None = None) -> Host:
    return np.array(value, dtype=dtype, copy=True if copy is None else copy)


def _itself(value: Any) -> Any:
    return value


def _box(value: Any, trace: int, node: Any) -> Any:
    """Return a box, of our class if a tape records it."""
    return Traced(value, trace, node) if type(node) is Record else ArrayBox(value, trace, node)


class _Boxes:
    """The table by which autograd finds the class of a box, while blocks are open."""

    lock = threading.Lock()
    open = 0

    @classmethod
    def opened(cls) -> None:
        with cls.lock:
            cls.open += 1
            if cls.open == 1:
                box_type_mappings.update(
                    {kind: _box for kind, box in box_type_mappings.items() if box is ArrayBox}
                )

    @classmethod
    def closed(cls) -> None:
        with cls.lock:
            cls.open -= 1
            if cls.open == 0:
                box_type_mappings.update(
                    {kind: ArrayBox for kind, box in box_type_mappings.items() if box is _box}
                )


box_types.update(
    (Traced, Variable)
)  # or else an operator between a box and a variable would lose the latter's part
box_type_mappings[Traced] = ArrayBox  # where the loss itself differentiates by autograd
notrace_primitives[Record] = notrace_primitives[VJPNode]
