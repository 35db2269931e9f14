"""The numerical promises of the Numba kernels: accuracy against an oracle, and reproducibility to the bit."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmsprop import IndexedSlices, RMSprop
from rmsprop.testing import assert_step, hyper_of, snapshot
from rmsprop_numba import threads

REALS = {"float16": (2.0**-14, 1e2), "float32": (1e-12, 1e12), "float64": (1e-100, 1e100)}
"""For each dtype, the range in which neither squares nor sums leave the normal numbers."""

DTYPES = [*REALS, "bfloat16", "complex64", "complex128"]


def numpy_dtype(name):
    return ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)


def reals(low, high):
    positive = st.floats(low, high)
    return st.one_of(st.just(0.0), positive, positive.map(lambda x: -x))


@st.composite
def arrays(draw, dtype, size):
    part = {"complex64": "float32", "complex128": "float64", "bfloat16": "float32"}.get(dtype, dtype)
    column = st.lists(reals(*REALS[part]), min_size=size, max_size=size)
    numbers = np.array(draw(column))
    if dtype.startswith("complex"):
        numbers = numbers + 1j * np.array(draw(column))
    return numbers.astype(numpy_dtype(dtype))


SETTINGS = st.fixed_dictionaries(
    {
        "learning_rate": st.floats(1e-6, 10),
        "rho": st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.001, 0.999)),
        "momentum": st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.001, 0.999)),
        "epsilon": st.floats(1e-8, 1),
        "centered": st.booleans(),
        "epsilon_in_sqrt": st.sampled_from([None, False, True]),
        "complex_as_real": st.booleans(),
    }
)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), settings=SETTINGS, size=st.integers(1, 20))
def test_every_step_is_within_4_ulp_of_the_oracle(dtype, data, settings, size):
    variable = data.draw(arrays(dtype, size))
    optimizer = RMSprop(**settings)
    optimizer.build([variable])
    for _ in range(2):
        gradient = data.draw(arrays(dtype, size))
        before, hyper = snapshot(optimizer, variable), hyper_of(optimizer)
        optimizer.apply_gradients([(gradient, variable)])
        assert_step(before, snapshot(optimizer, variable), gradient, hyper)


def test_without_momentum_float32_is_the_expression_of_numpy_to_the_bit():
    rng = np.random.default_rng(1)
    v = rng.standard_normal(10_000).astype(np.float32)
    expected, rms = v.copy(), np.zeros_like(v)
    optimizer = RMSprop(0.01)
    lr, rho, new, eps = (np.float32(x) for x in (0.01, 0.9, 1 - 0.9, 1e-7))
    for _ in range(50):
        g = rng.standard_normal(v.size).astype(np.float32)
        optimizer.apply_gradients([(g, v)])
        rms = rho * rms + new * (g * g)
        expected -= lr * g / (np.sqrt(rms) + eps)
    assert v.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_centered_variance_of_a_constant_gradient_never_becomes_negative(dtype):
    # In the reference, 1000.3 gives NaN at step 141; where rounding does so depends on the order of operations.
    rng = np.random.default_rng(0)
    g = np.r_[1000.3, 100 * (rng.standard_normal(999) + 1j * rng.standard_normal(999))]
    g = (g if np.dtype(dtype).kind == "c" else g.real).astype(dtype)
    v, optimizer = np.zeros(1000, dtype), RMSprop(0.001, centered=True)
    for _ in range(400):
        optimizer.apply_gradients([(g, v)])
    assert np.isfinite(v).all()


TRAJECTORY = """
import sys, hashlib, numba, numpy as np
from rmsprop import IndexedSlices, RMSprop
numba.set_num_threads(int(sys.argv[1]))
rng, digest = np.random.default_rng(0), hashlib.sha256()
for dtype, settings in [("float32", {}), ("float32", dict(momentum=0.9, centered=True, global_clipnorm=1.0)),
                        ("complex64", dict(clipvalue=0.5, clipnorm=2.0)), ("float16", dict(clipnorm=1.0))]:
    shapes = [(300_001,), (3, 4), (700, 300)]
    variables = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    variables[2] = np.asarray(variables[2], order="F")
    optimizer = RMSprop(0.01, **settings)
    for _ in range(3):
        gradients = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        gradients[2] = IndexedSlices(gradients[2], rng.integers(0, 700, 700))
        optimizer.apply_gradients(zip(gradients, variables))
    for array in [*variables, *optimizer.get_weights()]:
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_any_number_of_threads_gives_the_same_bits():
    digests = [
        subprocess.run([sys.executable, "-c", TRAJECTORY, n], capture_output=True, check=True, text=True).stdout
        for n in ("1", "2")
    ]
    assert digests[0] == digests[1]


def contiguous(a):
    return a.copy()


def with_gaps(a):
    wide = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def fortran(a):
    return np.asfortranarray(a)


def reversed_axes(a):
    turned = tuple(slice(None, None, -1) for _ in a.shape)
    return a[turned].copy()[turned]


def part_of_a_row(a):
    wide = np.zeros((*a.shape[:-1], a.shape[-1] + 3), a.dtype)
    view = wide[..., 1 : a.shape[-1] + 1]
    view[...] = a
    return view


def middle_axis_first(a):
    return np.moveaxis(np.moveaxis(a, 1, 0).copy(), 0, 1) if a.ndim > 1 else a.copy()


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = np.ndarray(a.shape, a.dtype, raw)
    view[...] = a
    return view


LAYOUTS = [contiguous, with_gaps, fortran, reversed_axes, part_of_a_row, middle_axis_first, unaligned]


def run(layout, gradient_layout, dtype, shape, settings):
    rng = np.random.default_rng(2)

    def draw():
        x = rng.standard_normal(shape)
        return (x + 1j * x[::-1] if dtype.startswith("complex") else x).astype(numpy_dtype(dtype))

    v = layout(draw())
    optimizer = RMSprop(0.01, momentum=0.5, centered=True, **settings)
    for _ in range(3):
        optimizer.apply_gradients([(gradient_layout(draw()), v)])
        rows = rng.integers(0, shape[0], 5)
        optimizer.apply_gradients([(IndexedSlices(gradient_layout(draw()[:1].repeat(5, 0)), rows), v)])
    return [np.ascontiguousarray(a).tobytes() for a in (v, *optimizer.get_weights())]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gradient_layout", LAYOUTS)
def test_any_layout_gives_the_same_bits_and_loses_no_update(layout, gradient_layout):
    expected = run(contiguous, contiguous, "float32", (6, 4, 5), {"global_clipnorm": 1.0})
    assert run(layout, gradient_layout, "float32", (6, 4, 5), {"global_clipnorm": 1.0}) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64", "float64"])
@pytest.mark.parametrize("as_real", [False, True])
def test_any_layout_of_any_dtype_gives_the_same_bits(layout, dtype, as_real):
    settings = {"complex_as_real": as_real, "clipvalue": 0.5}
    for shape in [(6,), (6, 1, 5), (300, 300)]:
        expected = run(contiguous, contiguous, dtype, shape, settings)
        assert run(layout, fortran, dtype, shape, settings) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_give_the_bits_of_one_thread_in_any_layout(layout, monkeypatch):
    expected = run(contiguous, contiguous, "float32", (130, 301), {})
    monkeypatch.setattr(threads, "PARALLEL_FROM", 0)
    assert run(layout, layout, "float32", (130, 301), {}) == expected


def test_an_array_of_any_layout_can_have_no_elements_or_no_axes():
    for shape in [(), (0,), (3, 0, 2), (1, 1)]:
        for order in "CF":
            v = np.ones(shape, np.float32, order=order)
            RMSprop(0.1).apply_gradients([(np.ones(shape, np.float32), v)])
            np.testing.assert_allclose(v, np.full(shape, 0.68377227, np.float32), rtol=2e-7)


def test_memmap_is_updated_on_disk(tmp_path):
    v = np.memmap(tmp_path / "v", np.float32, "w+", shape=(5,))
    v[:] = 1
    RMSprop(0.1).apply_gradients([(np.ones(5, np.float32), v)])
    v.flush()
    np.testing.assert_allclose(np.fromfile(tmp_path / "v", np.float32), np.full(5, 0.68377227), rtol=2e-7)


def test_gradients_that_are_read_only_will_do():
    g = np.ones(3)
    g.flags.writeable = False
    v = np.ones(3)
    RMSprop(0.1).apply_gradients([(g, v)])
    assert (v < 1).all()


def test_a_list_gives_the_same_bits_as_its_arrays_one_by_one():
    rng = np.random.default_rng(3)
    shapes = [(5,), (200, 500), (), (3, 4)]
    together = [np.asarray(rng.standard_normal(s)) for s in shapes]
    alone = [v.copy() for v in together]
    optimizer, single = RMSprop(momentum=0.9), [RMSprop(momentum=0.9) for _ in shapes]
    for _ in range(3):
        gradients = [np.asarray(rng.standard_normal(s)) for s in shapes]
        optimizer.apply_gradients(zip(gradients, together, strict=True))
        for one, g, v in zip(single, gradients, alone, strict=True):
            one.apply_gradients([(g, v)])
    for a, b in zip(together, alone, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_gradient_in_the_memory_of_a_variable_counts_as_it_was_before_the_step():
    # The saddle x*y: its gradient by x is y itself, and by y it is x.
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    a, b = x.copy(), y.copy()
    RMSprop(0.1, epsilon=1.0).apply_gradients([(y, x), (x, y)])
    RMSprop(0.1, epsilon=1.0).apply_gradients([(b.copy(), a), (a.copy(), b)])
    assert (x.tobytes(), y.tobytes()) == (a.tobytes(), b.tobytes())
    buffer = bytearray(8 * 99)
    w = np.frombuffer(buffer, float)
    w[:] = np.arange(1.0, 100.0)
    shifted = w[1:].copy()
    expected = w[:-1].copy()
    RMSprop(0.1, epsilon=1.0).apply_gradients([(shifted, expected)])
    start = w.copy()
    for gradient in (w[1:], np.frombuffer(buffer, float)[1:], np.from_dlpack(w)[1:]):
        w[:] = start
        RMSprop(0.1, epsilon=1.0).apply_gradients([(gradient, w[:-1])])
        assert w[:-1].tobytes() == expected.tobytes()


def test_a_gradient_in_the_memory_of_a_slot_counts_as_it_was_before_the_step():
    def second_step(taken):
        opt, w = RMSprop(0.1, epsilon=1.0), np.arange(1.0, 100.0)
        opt.apply_gradients([(w.copy(), w)])
        opt.apply_gradients([(taken(opt.get_slot(w, "rms").array[::-1]), w)])
        return w.tobytes()

    assert second_step(np.copy) == second_step(lambda view: view)


def test_two_optimizers_on_parts_of_a_complex_array_do_not_disturb_each_other():
    z = np.full(4, 1 + 1j, np.complex64)
    RMSprop(0.1).apply_gradients([(np.ones(4, np.float32), z.real), (np.ones(4, np.float32), z.imag)])
    np.testing.assert_allclose(z, 0.68377227 * (1 + 1j), rtol=1e-6)
