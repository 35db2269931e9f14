"""Traced values: numbers after the block of a tape, not before; and autograd as it is for everybody else."""

import copy
import io
import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.core import VJPNode, primitive_vjps
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.tracer import Box, trace_stack

from rmsprop import GradientTape, RMSprop, TorchTape, Variable

CONVERSIONS = {
    "float": (float, 3.0),
    "int": (int, 3),
    "complex": (complex, 3 + 0j),
    "format": (lambda x: f"{x:.4f}", "3.0000"),
    "item": (lambda x: x.item(), 3.0),
    "tolist": (lambda x: x.tolist(), 3.0),
    "numpy": (lambda x: x.numpy(), np.array(3.0)),
    "mean of a list": (lambda x: np.mean([x]), 3.0),
    "math": (math.sqrt, math.sqrt(3.0)),
    "round": (lambda x: round(x, 1), 3.0),
    "an element": (lambda x: np.put(out := np.zeros(2), 0, x) or out, np.array([3.0, 0])),
    "float64": (np.float64, 3.0),
    "json": (lambda x: json.dumps(float(x)), "3.0"),
    "pickle": (lambda x: pickle.loads(pickle.dumps(x)), 3.0),
}
LATER = {
    "str": (str, "3.0"),
    "array of a list": (lambda x: np.array([x, x]), np.array([3.0, 3.0])),
    "asarray": (np.asarray, np.array(3.0)),
    "sum": (lambda x: sum([x, x]), 6.0),
    "total": (lambda x: 1.0 + x + 1, 5.0),
    "comparison": (lambda x: (x < 4, x == 3, max(x, 2.0)), (True, True, 3.0)),
    "ufunc": (lambda x: np.maximum(x, 4), 4.0),
    "autograd's function": (lambda x: anp.log(x), math.log(3.0)),
    "deepcopy": (copy.deepcopy, 3.0),
    "variable": (lambda x: Variable(0.0).assign(x).numpy(), np.array(3.0)),
    "new variable": (lambda x: Variable(x).numpy(), np.array(3.0)),
    "astype": (lambda x: x.astype("f4"), np.array(3.0, "f4")),
    "index": (lambda x: x.reshape(1)[0], 3.0),
}


def recorded():
    v = Variable(np.array([1.0, 2.0]))
    with GradientTape() as tape:
        loss = anp.sum(v)
    return tape, loss, v


@pytest.mark.parametrize("name", [*CONVERSIONS, *LATER])
def test_after_the_block_a_loss_is_a_number(name):
    convert, expected = {**CONVERSIONS, **LATER}[name]
    tape, loss, v = recorded()
    result = convert(loss)
    assert not isinstance(result, Box)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(tape.gradient(loss, v), [1, 1])


@pytest.mark.parametrize("name", CONVERSIONS)
def test_inside_of_the_block_a_number_would_lose_its_gradient(name):
    convert, _ = CONVERSIONS[name]
    v = Variable(np.array([1.0, 2.0]))
    with GradientTape() as tape:
        loss = anp.sum(v)
        with pytest.raises((TypeError, ValueError)):
            convert(loss)
    np.testing.assert_array_equal(tape.gradient(loss, v), [1, 1])
    with pytest.raises((TypeError, ValueError)):
        RMSprop().minimize(lambda: anp.sum(v) + convert(anp.sum(v)), [v])
    np.testing.assert_array_equal(v.numpy(), [1, 2])


def test_the_error_inside_of_a_block_says_what_to_do():
    v = Variable([1.0])
    with GradientTape(), pytest.raises(TypeError, match="after the block.*getval"):
        float(v[0])


def test_a_loss_of_the_step_before_is_a_number_in_the_next_block():
    _, loss, v = recorded()
    with GradientTape() as tape:
        assert float(loss) == 3
        ratio = anp.sum(v) / loss
    np.testing.assert_allclose(tape.gradient(ratio, v), [1 / 3, 1 / 3])
    np.testing.assert_allclose(autograd.grad(lambda x: anp.sum(x * loss))(np.ones(2)), [3, 3])


def test_a_running_total_is_a_number():
    total, v = 0.0, Variable(np.array([3.0]))
    for _ in range(3):
        with GradientTape() as tape:
            loss = v[0] ** 2
        tape.gradient(loss, v)
        total += loss
    assert total == 27
    assert not isinstance(total, Box)


def test_arrays_are_numbers_after_the_block_too():
    v = Variable(np.array([1.0, 2.0]))
    with GradientTape() as tape:
        square = v**2
    plain = np.asarray(square)
    np.testing.assert_array_equal(plain, [1, 4])
    plain[:] = 0
    square.numpy()[:] = 0
    np.testing.assert_array_equal(square, [1, 4])
    assert [float(x) for x in square] == [1, 4]
    np.testing.assert_array_equal(tape.gradient(square, v), [2, 4])


def test_complex_numbers_too():
    z = Variable(np.array([1 + 2j]))
    with GradientTape():
        value = z[0]
    assert complex(value) == 1 + 2j


NUMPYS = {
    "norm": lambda x: np.linalg.norm(x),
    "dot": lambda x: np.dot(np.arange(4.0).reshape(2, 2), x),
    "concatenate": lambda x: np.concatenate([x, 2 * x]) ** 2,
    "stack": lambda x: np.stack([x, x**2]),
    "select": lambda x: np.select([np.array([True, False])], [x**2], 2 * x),
    "autograd's select": lambda x: anp.select([np.array([True, False])], [x**2], 2 * x),
    "where": lambda x: np.where(np.array([True, False]), x, x**2),
    "einsum": lambda x: np.einsum("i,i", x, x),
    "fft": lambda x: np.abs(np.fft.fft(x)) ** 2,
    "mean": lambda x: np.mean(x**2),
    "sum": lambda x: np.sum(x, axis=0),
    "sum of a list": lambda x: np.sum([x[0], x[1] ** 2]),
    "clip": lambda x: np.clip(x, 1.5, 3),
    "trapezoid": lambda x: np.trapezoid(x**2),
    "sort": lambda x: np.sort(x),
    "divide": lambda x: np.divide(x, np.absolute(x - 3)) + np.power(x, 2.0),
    "real": lambda x: (x * 1j * x).imag,
    "conj": lambda x: (x * x.conj()).real.dot(x),
    "method": lambda x: x.sum() + x.mean() + x.reshape(2, 1).T.max(),
}


@pytest.mark.parametrize("name", NUMPYS)
@pytest.mark.parametrize("as_variable", [True, False])
def test_functions_of_numpy_are_followed(name, as_variable):
    function, x = NUMPYS[name], np.array([1.0, 2.0])
    if as_variable:
        v = Variable(x)
        with GradientTape() as tape:
            loss = function(v)
    else:
        v = x
        with GradientTape() as tape:
            loss = function(tape.watch(x))
    gradient, eps = tape.gradient(loss, v), 1e-6
    slopes = [(np.sum(function(x + e)) - np.sum(function(x - e))) / (2 * eps) for e in eps * np.eye(2)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.interp([0.5], [0.0, 1.0], x),
        lambda x: np.spacing(x),
        lambda x: np.add.reduce(x),
        lambda x: np.add(x, 1, out=np.zeros(2)),
        lambda x: np.add.at(np.zeros(2), [0], x[0]),
        lambda x: np.save(io.BytesIO(), x),
        lambda x: np.emath.sqrt(-x),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(function):
    with pytest.raises(TypeError, match="interp|spacing|add|save|sqrt"):
        RMSprop().minimize(function, [np.ones(2)])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: x.__setitem__(0, 0.0),
        lambda x: np.zeros(2).__setitem__(0, x[0]),
        lambda x: np.zeros(2).__setitem__(slice(None), x),
    ],
)
def test_assignment_in_place_within_a_loss_says_what_to_write(loss):
    with pytest.raises((TypeError, ValueError)) as caught:
        RMSprop().minimize(loss, [np.ones(2)])
    assert "concatenate" in str(caught.value) + "".join(caught.value.__notes__)


def test_elements_of_a_variable_are_not_assigned():
    with pytest.raises(TypeError, match="'w'|w can't be assigned.*assign"):
        Variable([1.0], name="w")[0] = 2.0


def registered():
    """Return what autograd knows of boxes, spaces and gradients."""
    classes = {k: dict(vars(k)) for k in (ArrayBox, Box, VJPNode)}
    return dict(Box.type_mappings), classes, len(primitive_vjps), trace_stack.top


def test_autograd_is_as_it_was_for_everybody_else():
    recorded()  # has imported and registered our own classes
    before = registered()
    with pytest.raises(ZeroDivisionError):
        RMSprop().minimize(lambda x: 1 / 0, [np.ones(2)])
    tape, _, v = recorded()
    with tape:
        assert registered()[1:3] == before[1:3]
        _ = v * 2
    assert registered() == before
    with pytest.raises(TypeError, match="ArrayBox"):
        autograd.grad(lambda x: float(x))(1.0)
    seen = []
    autograd.grad(lambda x: seen.append(x) or anp.sum(seen.append(x**2) or x))(np.ones(2))
    assert [type(each) for each in seen] == [ArrayBox, ArrayBox]


def test_others_have_their_own_boxes_while_a_tape_records():
    seen, v = [], Variable(np.ones(2))
    with GradientTape() as tape:
        loss = anp.sum(v**2)
        slope_of = autograd.grad(lambda x: seen.append(x**2) or anp.sum(seen[-1]))
        with ThreadPoolExecutor(1) as pool:
            slope = pool.submit(slope_of, np.ones(2)).result()
    assert type(seen[0]) is ArrayBox
    np.testing.assert_array_equal(slope, [2, 2])
    np.testing.assert_array_equal(tape.gradient(loss, v), [2, 2])


def test_tapes_record_in_several_threads_at_once():
    barrier, before = Barrier(4), registered()

    def slope(k):
        v = Variable(np.full(3, float(k)))
        for _ in range(20):
            barrier.wait()
            with GradientTape() as tape:
                loss = anp.sum(v**2)
            assert float(loss) == 3 * k**2
            np.testing.assert_array_equal(tape.gradient(loss, v), 2.0 * k)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(slope, range(4)))
    assert registered()[0] == before[0]


class Wrapped:
    """An array around an array, which decides on ufuncs by itself, as those of xarray and pint do."""

    def __init__(self, data):
        self.data = data

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return Wrapped(getattr(ufunc, method)(*[getattr(x, "data", x) for x in inputs], **kwargs))

    def __rmul__(self, other):
        return np.multiply(other, self)


def test_arrays_around_arrays_come_first():
    v = Variable(np.array([1.0, 2.0]))
    with GradientTape() as tape:
        x = v.value
        loss = anp.sum((x * Wrapped(np.array([3.0, 4.0]))).data) + anp.sum(np.multiply(x, Wrapped(1.0)).data)
    np.testing.assert_array_equal(tape.gradient(loss, v), [4, 5])


@pytest.fixture(params=[GradientTape, TorchTape])
def make(request):
    if request.param is TorchTape:
        pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    return request.param


def test_gradients_can_be_asked_for_again_persistent_or_not(make):
    v = Variable([2.0])
    for persistent in (True, False):
        with make(persistent=persistent) as tape:
            loss = v * v
        assert tape.gradient(loss, v) == tape.gradient(loss, v) == 4
    assert make(True, False)._watch_accessed is False


def test_lists_and_dicts_are_watched(make):
    a, b, c = np.ones(1), np.full(1, 2.0), Variable([3.0], trainable=False)
    with make() as tape:
        x, inner = tape.watch([a, {"b": (b,), "c": c}])
        loss = x * inner["b"][0] * inner["c"]
    gradients = tape.gradient(loss, [a, {"b": (b,), "c": c}])
    assert gradients == [6, {"b": (3,), "c": 2}]
    assert tape.watched_variables() == (c,)


def test_watched_variables_are_those_that_were_used(make):
    a, b, c = Variable([1.0]), Variable([2.0]), Variable([3.0], trainable=False)
    with make() as tape:
        _ = b * c
        _ = a * b
    assert [v is w for v, w in zip(tape.watched_variables(), (b, a), strict=True)] == [True, True]


def test_nothing_is_recorded_while_recording_is_stopped(make):
    v = Variable([2.0])
    with make() as tape:
        x = v * 3
        with tape.stop_recording():
            constant = x * v
            assert float(constant[0]) == 12
        loss = constant * v
    assert tape.gradient(loss, v) == 12
    with pytest.raises(RuntimeError, match="stop_recording"), tape.stop_recording():
        pass
    with make() as tape:
        with pytest.raises(ZeroDivisionError), tape.stop_recording():
            _ = 1 / 0
        loss = v * v
    assert tape.gradient(loss, v) == 4


def test_unconnected_gradients_are_zeros_if_asked_for(make):
    from enum import Enum

    v, idle, plain = Variable([2.0]), Variable(np.ones((2, 3), np.float32)), np.ones(2)
    with make() as tape:
        loss = v * v
    zero = Enum("UnconnectedGradients", {"NONE": "none", "ZERO": "zero"}).ZERO
    for setting in ("zero", zero):
        by_v, by_idle, by_plain = tape.gradient(loss, [v, idle, plain], unconnected_gradients=setting)
        assert by_v == 4
        assert (by_idle == 0).all()
        assert (by_idle.shape, by_idle.dtype) == ((2, 3), np.float32)
        assert (by_plain == 0).all()
    assert tape.gradient(loss, [v, idle], None, "none")[1] is None
    with pytest.raises(ValueError, match="unconnected_gradients"):
        tape.gradient(loss, v, unconnected_gradients="zeros")


@pytest.mark.parametrize("weight", [3, 3.0, np.float32(3), np.array(3.0), Variable(3.0)], ids=repr)
def test_a_number_is_the_weight_of_all_elements(make, weight):
    v = Variable(np.array([1.0, 2.0]))
    with make() as tape:
        loss = v * v
    np.testing.assert_array_equal(tape.gradient(loss, v, weight), [6, 12])
    opt = RMSprop(rho=0.0)
    opt.minimize(lambda: v * v, [v], grad_loss=weight, tape=make())
    np.testing.assert_array_equal(opt.get_slot(v, "rms").numpy(), [36, 144])
