"""Variables: what they hold, how they are assigned, what can be computed with them."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from rmsprop import GradientTape, Variable


def test_initial_values_are_copied_and_converted():
    start = np.ones(3)
    v = Variable(start)
    start[0] = 5
    np.testing.assert_array_equal(v.numpy(), [1, 1, 1])
    assert Variable(1.0).dtype == Variable([1.0, 2]).dtype == np.float32
    assert Variable(np.float64(1)).dtype == Variable(1.0, dtype=np.float64).dtype == np.float64
    assert Variable(1).dtype == np.int64
    assert Variable(1j).dtype == np.complex128
    assert Variable(lambda: np.ones(2)).shape == (2,)
    assert Variable(Variable([1.0, 2.0])).shape == (2,)
    assert Variable(np.ones(2, ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16
    assert isinstance(Variable(array_api_strict.ones(2)).value, type(array_api_strict.ones(2)))


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="initial_value"):
        Variable("abc")


def test_assignment_keeps_shape_dtype_and_memory():
    v = Variable(np.zeros(2, np.float32), name="v")
    memory = v.value
    assert v.assign([1, 2]) is v
    assert v.assign_add(np.ones(2)) is v
    v.assign_sub(Variable([0.5, 0.5]))
    assert v.value is memory
    np.testing.assert_array_equal(v.numpy(), np.array([1.5, 2.5], np.float32))
    with pytest.raises(ValueError, match=r"v has shape \(2,\); given a value of shape \(3,\)"):
        v.assign([1, 2, 3])
    with pytest.raises(TypeError, match="v is real"):
        v.assign([1j, 2])


def test_immutable_arrays_are_replaced():
    v = Variable(array_api_strict.zeros(2))
    v.assign(np.array([1.0, 2.0])).assign_add(array_api_strict.ones(2))
    np.testing.assert_array_equal(v.numpy(), [2, 3])


def test_numpy_returns_a_copy():
    v = Variable([1.0])
    v.numpy()[0] = 7
    assert v.numpy()[0] == 1


def test_arithmetic_is_that_of_the_array():
    a = np.array([1.0, 2.0])
    v, b = Variable(a), np.array([3.0, 5.0])
    for result, expected in [
        (v + b, a + b), (b + v, a + b), (v - b, a - b), (b - v, b - a), (v * 2, a * 2), (2 * v, a * 2),
        (v / b, a / b), (b / v, b / a), (v // b, a // b), (b // v, b // a), (b % v, b % a), (v % b, a % b),
        (v**2, a**2), (2**v, 2**a), (v @ b, a @ b), (b @ v, a @ b), (-v, -a), (+v, a), (abs(-1 * v), a),
        (v < b, a < b), (v <= b, a <= b), (v > b, a > b), (v >= b, a >= b), (v == a, a == a), (v != b, a != b),
        (v + v, a + a), (v[0], a[0]), (v[::-1], a[::-1]), (np.exp(v), np.exp(a)), (np.sum(v), 3.0),
        (np.concatenate([v, b]), np.concatenate([a, b])), (np.asarray(v), a), (np.array(v, dtype="f4"), a),
    ]:  # fmt: skip
        np.testing.assert_array_equal(result, expected)
    assert len(v) == 2
    assert list(v) == [1, 2]
    assert (float(Variable(2.5)), int(Variable(2.5)), bool(Variable(0.0)), complex(Variable(1j))) == (
        2.5,
        2,
        False,
        1j,
    )
    assert [10, 20][Variable(1)] == 20


def test_ufuncs_write_into_variables():
    v = Variable(np.zeros(2))
    np.add([1, 2], [3, 4], out=v)
    np.testing.assert_array_equal(v.numpy(), [4, 6])


def test_a_variable_shows_name_and_value():
    assert repr(Variable([1.0], name="w")) == "Variable('w', array([1.], dtype=float32))"


def test_conversion_to_numpy_inside_a_tape_is_refused_as_it_would_lose_the_gradient():
    v = Variable([1.0], name="w")
    with GradientTape(), pytest.raises(TypeError, match=r"w .*\.value"):
        np.asarray(v)


METHODS = [
    ("all", ()), ("any", ()), ("argmax", ()), ("argmin", (1,)), ("argsort", ()), ("astype", ("f4",)),
    ("clip", (1, 2)), ("conj", ()), ("conjugate", ()), ("copy", ()), ("cumprod", ()), ("cumsum", (0,)),
    ("diagonal", ()), ("dot", (np.ones(2),)), ("flatten", ()), ("max", ()), ("mean", (0,)), ("min", ()),
    ("prod", ()), ("ravel", ()), ("repeat", (2,)), ("reshape", (1, 4)), ("round", ()), ("squeeze", ()),
    ("std", ()),
    ("sum", (1,)), ("swapaxes", (0, 1)), ("take", ([0, 1],)), ("tolist", ()), ("trace", ()), ("transpose", ()),
    ("var", ()), ("item", (0,)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args"), METHODS, ids=lambda x: x if isinstance(x, str) else "")
def test_methods_are_those_of_the_array(name, args):
    array = np.array([[1.5, 2.0], [0.0, 4.0]])
    v = Variable(array)
    np.testing.assert_array_equal(getattr(v, name)(*args), getattr(array, name)(*args))
    np.testing.assert_array_equal(v.numpy(), array)


def test_a_variable_is_read_as_an_array_is():
    z = np.array([[1 + 2j, 3.0, 5.0]])
    v = Variable(z)
    assert v.read_value() is v.value
    assert v.size == 3
    np.testing.assert_array_equal(v.T, z.T)
    np.testing.assert_array_equal(v.real, z.real)
    np.testing.assert_array_equal(v.imag, z.imag)
    np.testing.assert_array_equal(v[Variable([0])], z[[0]])
    assert round(Variable(2.345, dtype=np.float64), 1) == 2.3
    with GradientTape() as tape:
        loss = (v.real**2).sum() + v.read_value().imag.sum()
    np.testing.assert_array_equal(tape.gradient(loss, v), 2 * z.real + 1j)


@pytest.mark.parametrize("make", [np.array, array_api_strict.asarray])
def test_a_number_is_formatted_as_a_number(make):
    assert (
        f"{Variable(make(2.5)):.3f} {Variable(make(7)):05d} {Variable(make(1 + 2j)):.1f}" == "2.500 00007 1.0+2.0j"
    )
    v = Variable(make([1.0, 2.0]), name="w")
    assert f"{v}" == str(v) == repr(v)
    with pytest.raises(TypeError, match="format"):
        f"{v:.2f}"


def test_a_half_is_formatted_as_a_number():
    assert f"{Variable(np.array(2.5, ml_dtypes.bfloat16)):.2f}" == "2.50"


def test_shapes_of_constants_are_known_inside_of_a_tape():
    import autograd.numpy as anp

    with GradientTape():
        assert anp.shape(Variable([1, 2])) == anp.shape(Variable([1.0, 2.0])) == (2,)
    assert anp.shape(Variable([1.0, 2.0])) == (2,)
