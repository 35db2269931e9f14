"""Clipping of gradients of every size, against exact numbers, and without a warning for anything on the way."""

import copy
import importlib
from fractions import Fraction
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable
from rmsprop.testing import hyper_of, snapshot
from rmsprop.testing.oracle import exact_norm, expected_clipping

COMPUTE = {"float16": "float32", "bfloat16": "float32", "complex64": "float32", "complex128": "float64"}
EXPONENTS = {"float16": (-24, 15), "bfloat16": (-133, 127), "float32": (-149, 127), "float64": (-1074, 1023)}
LIBRARIES = {
    "numpy": ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"],
    "array_api_strict": ["float32", "float64", "complex64", "complex128"],
    "torch": ["float16", "float32", "float64", "complex64", "complex128"],
    "jax.numpy": ["float32", "bfloat16", "complex64"],
    "cupy": ["float16", "float32", "float64", "complex64", "complex128"],
}
CASES = [
    pytest.param(library, dtype, marks=pytest.mark.gpu if library == "cupy" else ())
    for library, dtypes in LIBRARIES.items()
    for dtype in dtypes
]


def dtype_of(name):
    return ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)


def real_of(name):
    """Return the name of the dtype of real and imaginary part."""
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def maker(library):
    """Return what makes arrays of a library, by which NumPy's are copied."""
    xp = importlib.import_module(library) if library == "numpy" else pytest.importorskip(library)
    if library == "cupy" and not xp.cuda.is_available():
        pytest.skip("no CUDA device")
    if library == "torch":
        return lambda array: xp.from_numpy(np.array(array))
    if library == "jax.numpy":
        return lambda array: xp.asarray(array.astype(np.int32) if array.dtype == np.int64 else array)
    return xp.asarray


def given_as(kind, array, asarray, is_plain):
    """Return a variable of zeros, and a gradient for it with the elements of an array, in memory of some kind."""
    zeros = np.zeros_like(array)
    if kind == "sparse":
        gradient = IndexedSlices(asarray(array.reshape(-1, 1)), asarray(np.arange(array.size)))
        zeros = zeros.reshape(-1, 1)
    else:
        gradient = asarray(array)
    if not is_plain:
        return Variable(asarray(zeros)), gradient
    return (asarray(zeros.repeat(2, 0))[::2] if kind == "strided" else asarray(zeros)), gradient


@st.composite
def magnitudes(draw, low, high):
    """Draw numbers of all sizes, most of them near a common one."""
    top = draw(st.integers(low, high))
    exponents = draw(
        st.lists(st.one_of(st.integers(max(low, top - 9), top), st.integers(low, top)), min_size=1, max_size=4)
    )
    return [draw(st.sampled_from([0.0, 1.0, -1.0, 1.9, -1.3])) * 2.0**e for e in exponents]


@st.composite
def gradients(draw, dtype):
    low, high = EXPONENTS[real_of(dtype)]
    real = np.array(draw(magnitudes(low, high)))
    if dtype.startswith("complex"):
        imag = draw(st.lists(st.sampled_from([0.0, 1.0, -1.7]), min_size=len(real), max_size=len(real)))
        real = real + 1j * np.array(imag) * abs(real).max() / 2
    return real.astype(dtype_of(dtype))


@st.composite
def limits(draw, dtype):
    """Draw settings that clip, with limits of every size."""
    low, high = EXPONENTS[real_of(dtype)]
    limit = st.builds(lambda x, e: x * 2.0**e, st.sampled_from([1.0, 1.4]), st.integers(low, high))
    names = st.sampled_from([["clipnorm"], ["global_clipnorm"], ["clipvalue"], ["clipvalue", "clipnorm"],
                             ["clipnorm", "global_clipnorm"], ["clipvalue", "global_clipnorm"]])  # fmt: skip
    return {name: draw(limit) for name in draw(names)}


def difference(got, expected, dtype, is_flushed):
    """Return how far numbers are from exact ones, in units of the last place of the arithmetic."""
    real = np.dtype(COMPUTE.get(dtype, dtype))
    least = np.finfo(real).smallest_normal if is_flushed else 0.0
    units = [Fraction(float(max(np.spacing(np.abs(real.type(float(e)))), least))) for e in expected]
    return max((abs(Fraction(float(g)) - e) / u for g, e, u in zip(got, expected, units, strict=True)), default=0)


def parts(array):
    """Return the elements of an array in C order, of complex ones both parts."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


@pytest.mark.parametrize(("library", "dtype"), CASES)
@settings(
    max_examples=settings().max_examples // 8,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],  # of limits that leave too much
)
@given(data=st.data())
def test_clipping_is_exact_to_4_ulp_at_every_magnitude(library, dtype, data):
    asarray, is_flushed = maker(library), library in ("jax.numpy", "cupy")
    arrays = data.draw(st.lists(gradients(dtype), min_size=1, max_size=3))
    options, kinds = data.draw(limits(dtype)), ["dense", "strided", "sparse"]
    kinds = data.draw(st.lists(st.sampled_from(kinds), min_size=len(arrays), max_size=len(arrays)))
    later = options.pop("global_clipnorm", None)
    scale = data.draw(st.sampled_from([None, 2.0**15]))
    # The second moment stays 0, so that `momentum` becomes the gradient that is left.
    options["nonfinite"] = data.draw(st.sampled_from(["propagate", "raise"]))
    options["complex_as_real"] = data.draw(st.booleans())
    opt = RMSprop(1.0, rho=1.0, epsilon=1.0, momentum=lambda: 0.0, **options)
    opt.global_clipnorm, opt.loss_scale = later, scale and LossScale(scale, dynamic=False)
    hyper, wide = hyper_of(opt), "float32" if library == "jax.numpy" else "float64"
    assume(
        all(
            np.isfinite(limit)
            for limit in (hyper.clipnorm, hyper.global_clipnorm, hyper.clipvalue)
            if limit is not None
        )
    )
    exact = [
        x
        for g in arrays
        for x in expected_clipping([g], hyper._replace(clipnorm=None, global_clipnorm=None, loss_scale=1.0))[0]
    ]
    assume(exact_norm(exact) <= Fraction(float(np.finfo(wide).max)) / 2)
    expected = expected_clipping(arrays, hyper)
    # The square of what is left must not overflow.
    most = Fraction(2) ** (EXPONENTS[COMPUTE.get(dtype, dtype)][1] // 2 - 1)
    assume(all(abs(x) < most for numbers in expected for x in numbers))
    pairs = [given_as(k, a, asarray, library in ("numpy", "cupy")) for k, a in zip(kinds, arrays, strict=True)]
    with np.errstate(all="raise"):
        for _ in range(2):
            opt.apply_gradients([(gradient, variable) for variable, gradient in pairs])
    for (variable, _), numbers in zip(pairs, expected, strict=True):
        got = parts(opt.get_slot(variable, "momentum").numpy())
        assert difference(got, numbers, dtype, is_flushed) <= 4


@pytest.mark.parametrize("setting", ["clipnorm", "global_clipnorm"])
@pytest.mark.parametrize(("library", "dtype"), CASES)
def test_the_largest_gradients_are_shortened_to_a_usual_norm(library, dtype, setting):
    asarray, largest = maker(library), EXPONENTS[real_of(dtype)][1]
    for exponent in range(largest - 4, largest):
        arrays = [np.array(x).astype(dtype_of(dtype)) * 2.0**exponent for x in ([0.0], [0.0, 1.25], [0.5, 1.0])]
        arrays = [(a * (1 + 0.5j) if dtype.startswith("complex") else a).astype(dtype_of(dtype)) for a in arrays]
        opt = RMSprop(1.0, rho=1.0, epsilon=1.0, momentum=lambda: 0.0, **{setting: 1.0})
        hyper = hyper_of(opt)
        pairs = [given_as("dense", a, asarray, library in ("numpy", "cupy")) for a in arrays]
        opt.apply_gradients([(gradient, variable) for variable, gradient in pairs])
        for (variable, _), numbers in zip(pairs, expected_clipping(arrays, hyper), strict=True):
            got = parts(opt.get_slot(variable, "momentum").numpy())
            assert difference(got, numbers, dtype, is_flushed=True) <= 4


@pytest.mark.parametrize("setting", ["clipvalue", "clipnorm", "global_clipnorm"])
@pytest.mark.parametrize(("library", "dtype"), CASES)
def test_the_smallest_gradients_are_shortened_to_even_smaller_ones(library, dtype, setting):
    asarray, is_flushed = maker(library), library in ("jax.numpy", "cupy")
    smallest = EXPONENTS[real_of(dtype)][0]
    for exponent, limit in product(range(smallest + 2, smallest + 26, 3), range(smallest, smallest + 24, 4)):
        arrays = [(2.0**exponent * np.array(x)).astype(dtype_of(dtype)) for x in ([0.0, 1.25], [1.0])]
        opt = RMSprop(1.0, rho=1.0, epsilon=1.0, momentum=lambda: 0.0, **{setting: 2.0**limit})
        pairs = [given_as("dense", a, asarray, library in ("numpy", "cupy")) for a in arrays]
        opt.apply_gradients([(gradient, variable) for variable, gradient in pairs])
        for (variable, _), numbers in zip(pairs, expected_clipping(arrays, hyper_of(opt)), strict=True):
            got = parts(opt.get_slot(variable, "momentum").numpy())
            assert difference(got, numbers, dtype, is_flushed) <= 4


CLIPPING = [
    {},
    {"clipvalue": 1e-3},
    {"clipnorm": 1e-3},
    {"global_clipnorm": 1e-300},
    {"clipvalue": 1.0, "clipnorm": 0.0},
]
OTHERS = [
    {},
    {"centered": True, "momentum": 0.9},
    {"nonfinite": "skip", "complex_as_real": True},
    {"nonfinite": "raise", "lazy": False, "decay": 1e-3},
    {"nonfinite": "skip", "loss_scale": LossScale(2.0**20), "epsilon_in_sqrt": True, "epsilon": 2e-38},
    {"state_dtype": "bfloat16", "lazy": False, "centered": True},
    {"state_dtype": "uint8", "momentum": 0.5},
]


@pytest.mark.parametrize(("library", "dtype"), CASES)
@pytest.mark.parametrize("clipping", CLIPPING, ids=str)
def test_no_setting_lets_a_step_raise_what_numpy_is_asked_to_raise(library, dtype, clipping):
    asarray, is_plain = maker(library), library in ("numpy", "cupy")
    real = np.finfo(np.float32 if real_of(dtype) in ("float16", "bfloat16") else real_of(dtype))
    numbers = np.array([0, 1, -1e-30, real.tiny, real.smallest_subnormal, real.max / 8], real.dtype)
    with np.errstate(all="ignore"):
        array = (numbers * (1 + 1j) if dtype.startswith("complex") else numbers).astype(dtype_of(dtype))
    array = np.where(np.isfinite(array), array, 1).astype(array.dtype)
    for others in OTHERS if library == "numpy" and dtype in ("float32", "float64") else OTHERS[:-2]:
        opt = RMSprop(0.1, **clipping, **copy.deepcopy(others))
        kinds = ["dense", "strided"] if others.get("state_dtype") == "uint8" else ["dense", "strided", "sparse"]
        variables, given = zip(*[given_as(kind, array, asarray, is_plain) for kind in kinds], strict=True)
        with np.errstate(all="raise"):
            for _ in range(3):
                opt.apply_gradients(list(zip(given, variables, strict=True)))
            if opt.nonfinite == "skip" and dtype != "float16":
                opt.apply_gradients([(asarray(np.full_like(array, np.nan)), variables[0])])


@pytest.mark.parametrize(("library", "dtype"), CASES)
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True}], ids=str)
@pytest.mark.parametrize("number", [1e39, 1e-60])
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "clipvalue", "clipnorm"])
def test_no_number_beyond_a_dtype_lets_a_step_raise_what_numpy_is_asked_to_raise(
    library, dtype, settings, number, name
):
    asarray, is_plain = maker(library), library in ("numpy", "cupy")
    found = []
    for reaction in ("ignore", "raise"):
        variable, gradient = given_as("dense", np.ones(3, dtype_of(dtype)), asarray, is_plain)
        opt = RMSprop(**{"learning_rate": 0.1, name: number} | settings)
        with np.errstate(all=reaction):
            for _ in range(2):
                opt.apply_gradients([(gradient, variable)])
        found.append([array.tobytes() for array in snapshot(opt, variable) if array is not None])
    assert found[0] == found[1]


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", pytest.param("cupy", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("tiny", "large"), [(1e-162, 1e38), (1e-170, 1e38), (2.0**-1074, 1e38), (2e-50, 2e273)])
def test_a_gradient_whose_square_vanishes_is_shortened_with_all_others(library, tiny, large):
    asarray = maker(library)
    pairs = [given_as("dense", np.array([x]), asarray, library != "array_api_strict") for x in (tiny, large)]
    opt = RMSprop(1.0, rho=1.0, epsilon=1.0, momentum=lambda: 0.0, global_clipnorm=1.0)
    opt.apply_gradients([(gradient, variable) for variable, gradient in pairs])
    small, one = (opt.get_slot(variable, "momentum").numpy()[0] for variable, _ in pairs)
    np.testing.assert_allclose([small, one], [tiny / large, 1.0], rtol=1e-12)
