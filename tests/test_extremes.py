"""Numbers and settings of every size: each operation is that of NumPy, whatever under- or overflows on the way."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsprop import RMSprop, Variable
from rmsprop.testing import VariableState, hyper_of, snapshot

DTYPES = {
    "float16": np.float32,
    "bfloat16": np.float32,
    "float32": np.float32,
    "float64": np.float64,
    "complex64": np.float32,
    "complex128": np.float64,
}
"""For each dtype, that of the arithmetic."""
SIZES = {np.float32: (-149, 127), np.float64: (-1074, 1023)}
"""Exponents of the smallest and of the largest numbers."""
EDGES = st.sampled_from([0.0, 1e-30, 0.5, 1.0 - 2.0**-30, 1.0])
SETTINGS = st.fixed_dictionaries(
    {
        "learning_rate": st.sampled_from([0.0, 1e-300, 1e-30, 1e-3, 1e10, 1e300]),
        "rho": EDGES,
        "momentum": EDGES,
        "epsilon": st.sampled_from([0.0, 1.2e-38, 1e-30, 1e-7, 1.0, 1e30, 1e300]),
        "centered": st.booleans(),
        "epsilon_in_sqrt": st.sampled_from([None, False, True]),
    }
)


@st.composite
def numbers(draw, dtype, count):
    """Draw numbers of every magnitude, with zeros, infinities and NaN among them."""
    real = DTYPES[dtype]
    of_one = st.tuples(st.sampled_from([-1.5, -1.0, 0.0, 1.0, 1.75, np.nan]), st.integers(*SIZES[real]))
    size = count * (2 if dtype.startswith("complex") else 1)
    drawn = draw(st.lists(of_one, min_size=size, max_size=size))
    parts = np.array([np.ldexp(real(x), e) for x, e in drawn], real)
    if dtype.startswith("complex"):
        return parts.view(dtype)
    with np.errstate(over="ignore"):
        return parts.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def by_numpy(before, gradient, hyper):
    """Return the state after a step as NumPy computes it, part by part of complex numbers."""
    dtype = before.variable.dtype
    real = before.rms.dtype.type
    numbers = hyper.numbers_of()
    lr, rho, new, mu = map(real, (numbers.rate, numbers.rho, numbers.one_minus_rho, numbers.mu))
    inner, outer = real(numbers.epsilon_inside), real(numbers.epsilon_outside)

    def parts(array):
        return [array.real, array.imag] if dtype.kind == "c" else [array.astype(real)]

    def whole(parts):
        return (parts[0] if len(parts) == 1 else np.stack(parts, -1).reshape(-1).view(dtype)).astype(dtype)

    def squared(parts):
        return sum(part * part for part in parts[1:]) + parts[0] * parts[0] if len(parts) > 1 else parts[0] ** 2

    g, mg, mom = parts(gradient), None, None
    rms = variance = rho * before.rms + new * squared(g)
    if hyper.centered:
        mg = [m * rho + x * new for m, x in zip(parts(before.mg), g, strict=True)]
        variance = np.where(np.isinf(rms), rms, rms - squared(mg))
        variance = np.where(variance < 0, real(0), variance)
    step = [x * lr / (np.sqrt(variance + inner) + outer) for x in g]
    if hyper.momentum is not None:
        step = mom = [m * mu + s for m, s in zip(parts(before.momentum), step, strict=True)]
    variable = whole([v - s for v, s in zip(parts(before.variable), step, strict=True)])
    slots = [None if x is None else x[0] if len(x) == 1 else whole(x) for x in (mom, mg)]
    return VariableState(variable, rms, *slots)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=settings().max_examples // 10)
@given(data=st.data(), options=SETTINGS, is_strided=st.booleans())
def test_every_operation_is_that_of_numpy_to_the_bit_at_every_magnitude(dtype, data, options, is_strided):
    variable = data.draw(numbers(dtype, 6))
    variable = variable.repeat(2)[::2] if is_strided else variable
    optimizer = RMSprop(**options)
    optimizer.build([variable])
    for _ in range(2):
        gradient = data.draw(numbers(dtype, 6))
        before, hyper = snapshot(optimizer, variable), hyper_of(optimizer)
        optimizer.apply_gradients([(gradient, variable)])
        with np.errstate(all="ignore"):
            expected = by_numpy(before, gradient, hyper)
        for name, got, wanted in zip(VariableState._fields, snapshot(optimizer, variable), expected, strict=True):
            if wanted is not None:
                assert got.dtype == wanted.dtype
                wide = np.result_type(got, np.float32)  # in which NaN of bfloat16 is known as such
                np.testing.assert_array_equal(got.astype(wide), wanted.astype(wide), err_msg=name)


@pytest.mark.parametrize("library", ["numpy", "array_api_strict"])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_gradient_whose_square_overflows_leaves_its_element_as_it_is(dtype, centered, library):
    asarray = array_api_strict.asarray if library == "array_api_strict" else np.asarray
    v, opt = Variable(asarray(np.ones(3, dtype))), RMSprop(0.1, centered=centered)
    for huge in (np.finfo(dtype).max, 2.0):
        opt.apply_gradients([(asarray(np.array([1, huge, 1], dtype)), v)])
    after = v.numpy()
    assert after[1] == 1
    assert (after[[0, 2]] != 1).all()
    assert np.isfinite(after).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("limit", [1e300, 1e30, 1e-300])
@pytest.mark.parametrize("name", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_limits_of_every_size_can_be_given(dtype, limit, name):
    v = np.ones(3, dtype)
    RMSprop(0.1, **{name: limit}).apply_gradients([(np.ones(3, dtype), v)])
    assert np.isfinite(v).all()


def test_rho_and_momentum_of_0_and_1_do_as_the_formula_says():
    v = np.array([4.0])
    RMSprop(1.0, rho=1.0, epsilon=1.0).apply_gradients([(np.array([2.0]), v)])
    assert v[0] == 2  # no average: 4 - 2 / (0 + 1)
    v = np.array([4.0])
    RMSprop(1.0, rho=0.0).apply_gradients([(np.array([-2.0]), v)])
    assert v[0] == pytest.approx(5)  # by the sign
    v, opt = np.array([0.0]), RMSprop(1.0, rho=0.0, momentum=1.0)
    for _ in range(3):
        opt.apply_gradients([(np.array([-2.0]), v)])
    assert v[0] == pytest.approx(6)  # 1 + 2 + 3, and the velocity never fades
