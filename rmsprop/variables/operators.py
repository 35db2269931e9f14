"""Operators that act on an object's ``value``."""

import operator
from collections.abc import Callable
from typing import Any


def value_of(x: Any) -> Any:
    """Return the array that `x` holds, or `x` itself."""
    return x.value if isinstance(x, ValueOperators) else x


def _of_array(name: str) -> Callable[..., Any]:
    """Return the method that calls the value's own method of the same name."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.value, name)(*map(value_of, args), **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Return what the method `{name}` of the value returns."
    return method


class ValueOperators:
    """Arithmetic, comparison, indexing and methods of ``self.value``, in the array library of the value.

    Of the methods of arrays, these are the ones that leave an array as it is.
    """

    __slots__ = ()
    value: Any

    def __add__(self, other: Any) -> Any:
        return self.value + value_of(other)

    def __radd__(self, other: Any) -> Any:
        return other + self.value

    def __sub__(self, other: Any) -> Any:
        return self.value - value_of(other)

    def __rsub__(self, other: Any) -> Any:
        return other - self.value

    def __mul__(self, other: Any) -> Any:
        return self.value * value_of(other)

    def __rmul__(self, other: Any) -> Any:
        return other * self.value

    def __truediv__(self, other: Any) -> Any:
        return self.value / value_of(other)

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.value

    def __floordiv__(self, other: Any) -> Any:
        return self.value // value_of(other)

    def __rfloordiv__(self, other: Any) -> Any:
        return other // self.value

    def __mod__(self, other: Any) -> Any:
        return self.value % value_of(other)

    def __rmod__(self, other: Any) -> Any:
        return other % self.value

    def __pow__(self, other: Any) -> Any:
        return self.value ** value_of(other)

    def __rpow__(self, other: Any) -> Any:
        return other**self.value

    def __matmul__(self, other: Any) -> Any:
        return self.value @ value_of(other)

    def __rmatmul__(self, other: Any) -> Any:
        return other @ self.value

    def __neg__(self) -> Any:
        return -self.value

    def __pos__(self) -> Any:
        return +self.value

    def __abs__(self) -> Any:
        return abs(self.value)

    def __eq__(self, other: object) -> Any:
        return self.value == value_of(other)

    def __ne__(self, other: object) -> Any:
        return self.value != value_of(other)

    __hash__ = None  # type: ignore[assignment]  # elementwise equality and hashing exclude each other

    def __lt__(self, other: Any) -> Any:
        return self.value < value_of(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= value_of(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > value_of(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= value_of(other)

    def __getitem__(self, key: Any) -> Any:
        return self.value[value_of(key)]

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Any:
        return iter(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.value.item(), digits)

    @property
    def T(self) -> Any:
        """The transposed value."""
        return self.value.T

    @property
    def real(self) -> Any:
        """The real part of the value."""
        return self.value.real

    @property
    def imag(self) -> Any:
        """The imaginary part of the value."""
        return self.value.imag

    all = _of_array("all")
    any = _of_array("any")
    argmax = _of_array("argmax")
    argmin = _of_array("argmin")
    argsort = _of_array("argsort")
    astype = _of_array("astype")
    clip = _of_array("clip")
    conj = _of_array("conj")
    conjugate = _of_array("conjugate")
    copy = _of_array("copy")
    cumprod = _of_array("cumprod")
    cumsum = _of_array("cumsum")
    diagonal = _of_array("diagonal")
    dot = _of_array("dot")
    flatten = _of_array("flatten")
    item = _of_array("item")
    max = _of_array("max")
    mean = _of_array("mean")
    min = _of_array("min")
    prod = _of_array("prod")
    ravel = _of_array("ravel")
    repeat = _of_array("repeat")
    reshape = _of_array("reshape")
    round = _of_array("round")
    squeeze = _of_array("squeeze")
    std = _of_array("std")
    sum = _of_array("sum")
    swapaxes = _of_array("swapaxes")
    take = _of_array("take")
    tolist = _of_array("tolist")
    trace = _of_array("trace")
    transpose = _of_array("transpose")
    var = _of_array("var")
