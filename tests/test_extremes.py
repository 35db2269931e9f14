"""Numbers of every magnitude, and settings of every size: all finite numbers but the ordinary ones.

On the CPU, a step is the documented formula in the computing dtype, operation by operation, whatever overflows or
underflows in it. It is as near to the oracle as any, unless an operation leaves the range of the dtype.
"""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsprop import RMSprop, Variable, dtypes
from rmsprop.testing import Snapshot, assert_step, hyper_of, snapshot

DTYPES = list(dtypes.COMPUTE)
FEW = settings(max_examples=settings().max_examples // 4)
TINY = float(np.finfo(np.float32).tiny)
"""The smallest epsilon that is not refused."""


def settings_of(rates, fractions, epsilons):
    return st.fixed_dictionaries(
        {
            "learning_rate": st.sampled_from(rates),
            "rho": st.sampled_from(fractions),
            "momentum": st.sampled_from(fractions),
            "epsilon": st.sampled_from(epsilons),
            "centered": st.booleans(),
            "epsilon_in_sqrt": st.sampled_from([None, False, True]),
            "complex_as_real": st.booleans(),
        }
    )


RATES = [0.0, 1e-30, 1e-3, 1.0, 1e10, 1e38]
FRACTIONS = [0.0, 1.0, 1e-30, 0.5, 0.9, 1.0 - 2.0**-24, 1.0 - 2.0**-53]
EPSILONS = [TINY, 1e-30, 1e-7, 1.0, 1e30]
NORMAL = settings_of(RATES, FRACTIONS, EPSILONS)
ANY = settings_of([*RATES, 1e-40, 1e-300, 1e300], [*FRACTIONS, 1e-40, 1e-300], [*EPSILONS, 1e300])
"""Of these, some are subnormal, zero or infinite in float32."""


def numpy_dtype(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def part_of(dtype):
    """Return the dtype of real and imaginary part."""
    return numpy_dtype({"complex64": "float32", "complex128": "float64"}.get(dtype, dtype))


@st.composite
def numbers(draw, dtype, size):
    """Draw finite numbers of every exponent that the dtype has, many of them subnormal, ordinary or zero."""
    part = part_of(dtype)
    count = size * (2 if dtypes.is_complex(dtype) else 1)
    drawn = np.frombuffer(draw(st.binary(min_size=count * part.itemsize, max_size=count * part.itemsize)), part)
    kinds = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    limits = ml_dtypes.finfo(part)
    with np.errstate(all="ignore"):  # which comparing some NaN warns of
        drawn = np.where(np.isfinite(drawn), drawn, limits.max)
        fractions = np.frexp(drawn)[0].astype(part)
        chosen = np.choose(kinds % 5, [drawn, fractions * limits.tiny, fractions, fractions * 0, drawn])
    return chosen.astype(part).view(numpy_dtype(dtype))


def by_the_formula(before, gradient, hyper, number):
    """Return the state after a step of real numbers, computed with a type of NumPy's."""
    variable, rms, momentum, mg = (None if x is None else x.astype(number) for x in before)
    g, (inner, outer) = gradient.astype(number), map(number, hyper.epsilons)
    rho, new = number(hyper.rho), number(1 - hyper.rho)
    rms = variance = rho * rms + new * (g * g)
    if mg is not None:
        mg = rho * mg + new * g
        variance = np.where(np.isinf(rms), rms, rms - mg * mg)
        variance = np.where(variance < 0, number(0), variance)
    step = g * number(hyper.learning_rate) / (np.sqrt(variance + inner) + outer)
    if momentum is not None:
        step = momentum = number(hyper.momentum) * momentum + step
    return Snapshot((variable - step).astype(before.variable.dtype), rms, momentum, mg)


def halves(state):
    """Return the state of the real parts, and that of the imaginary parts."""
    return (Snapshot(*(None if x is None else part(x) for x in state)) for part in (np.real, np.imag))


def assert_same_bits(state, expected):
    for got, wanted in zip(state, expected, strict=True):
        if wanted is not None:
            got, wanted = np.ascontiguousarray(got), np.ascontiguousarray(wanted)
            are_nan = np.isnan(wanted)
            np.testing.assert_array_equal(np.isnan(got), are_nan)
            assert got[~are_nan].tobytes() == wanted[~are_nan].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@FEW
@given(data=st.data(), options=ANY, size=st.integers(1, 9), layout=st.sampled_from([1, 2, -1]))
def test_any_finite_numbers_give_the_bits_of_the_formula_in_numpy(dtype, data, options, size, layout):
    options["complex_as_real"] = True
    variable = data.draw(numbers(dtype, size)).repeat(abs(layout))[::layout]
    optimizer, computing = RMSprop(**options), dtypes.COMPUTE[dtype]
    optimizer.build([variable])
    for _ in range(2):
        gradient = data.draw(numbers(dtype, size))
        before, hyper = snapshot(optimizer, variable), hyper_of(optimizer)
        optimizer.apply_gradients([(gradient, variable)])
        after = snapshot(optimizer, variable)
        with np.errstate(all="ignore"):
            if dtypes.is_complex(dtype):
                for old, new, g in zip(halves(before), halves(after), (gradient.real, gradient.imag), strict=True):
                    assert_same_bits(new, by_the_formula(old, g, hyper, part_of(dtype).type))
            else:
                assert_same_bits(after, by_the_formula(before, gradient, hyper, np.dtype(computing).type))


@pytest.mark.parametrize("library", ["numpy", "array_api_strict"])
@pytest.mark.parametrize("dtype", DTYPES)
@FEW
@given(data=st.data(), options=NORMAL, size=st.integers(1, 9))
def test_any_finite_numbers_give_a_step_within_4_ulp_unless_one_is_out_of_range(
    library, dtype, data, options, size
):
    asarray = array_api_strict.asarray if library == "array_api_strict" else np.asarray
    if library == "array_api_strict" and dtype in ("float16", "bfloat16"):
        return
    variable = Variable.around(asarray(data.draw(numbers(dtype, size))))
    optimizer = RMSprop(**options)
    optimizer.build([variable])
    for _ in range(2):
        gradient = data.draw(numbers(dtype, size))
        before, hyper = snapshot(optimizer, variable), hyper_of(optimizer)
        optimizer.apply_gradients([(asarray(gradient), variable)])
        with np.errstate(all="ignore"):
            assert_step(before, snapshot(optimizer, variable), gradient, hyper, dtype)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_gradient_whose_square_overflows_leaves_its_element_as_it_is(dtype, centered):
    v = np.ones(3, dtype)
    opt = RMSprop(0.1, centered=centered)
    for huge in (np.finfo(dtype).max, 2.0):
        opt.apply_gradients([(np.array([1, huge, 1], dtype), v)])
    assert v[1] == 1
    assert (v[[0, 2]] != 1).all()
    assert np.isfinite(v).all()
