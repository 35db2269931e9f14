"""State in bfloat16 and in 8 bits for variables of all dtypes, on NumPy and CuPy, and in files."""

import ml_dtypes
import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, Windows
from rmsprop.arrays import dtypes
from rmsprop.testing import assert_step, hyper_of, snapshot
from rmsprop.testing.oracle import expected_step
from rmsprop.variables.compact import LEAST

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
BY_DAY = [
    pytest.param(d, marks=[pytest.mark.nightly] * (d in ("float16", "float64", "complex128"))) for d in DTYPES
]
COMPLEX = ["complex64", "complex128"]
SHAPES = [(), (0,), (1,), (700,), (3, 5), (4, 65), (2, 600), (2, 3, 40)]
VARIANTS = [
    {},
    {"momentum": 0.5, "centered": True, "clipvalue": 1.0, "weight_decay": 0.1, "use_ema": True},
    {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "decoupled": True, "bias_correction": True},
]
ERRORS = {"bfloat16": (2.0**-7, 0.0, 0.0), "uint8": (1 / 8, 2.0**-32 / 0.9375, 2.0**-16 / 0.9375)}
"""Of one rounding: of the number, and of the largest of its block, in averages of squares and in others."""

each_state = pytest.mark.parametrize("state_dtype", ["bfloat16", "uint8"])
each_dtype = pytest.mark.parametrize("dtype", BY_DAY)
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def drawn(seed, shape, dtype):
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))
    if dtype.startswith("complex"):
        array = array + 1j * rng.standard_normal(shape)
    return np.asarray(array).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def to_host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def arrays_of(xp, dtype, shapes=SHAPES, seed=9):
    return [xp.asarray(drawn(seed + k, shape, dtype)) for k, shape in enumerate(shapes)]


def stepped(opt, variables, dtype, steps=range(3)):
    xp = None
    for step in steps:
        pairs = []
        for k, v in enumerate(variables):
            array = v.array if isinstance(v, Variable) else v
            xp = type(array)
            gradient = drawn(100 * step + k, array.shape, dtype)
            pairs.append((gradient if xp is np.ndarray else _cupy().asarray(gradient), v))
        opt.apply_gradients(pairs)
    return opt


def _cupy():
    import cupy

    return cupy


def bits(opt, variables):
    return [to_host(a).tobytes() for a in (*variables, *opt.get_weights())]


def codes(opt, variable):
    """Return what the slots of a variable are kept in."""
    found = {}
    for name in opt.get_slot_names():
        parts = getattr(opt.get_slot(variable, name), "parts", {})
        found |= {(name, part): to_host(array) for part, array in parts.items()}
    return found


# Beside the oracle


def decoded(before, state_dtype):
    """Return what a step begins with: an average of squares that is not below what rounding may hide."""
    if before.mg is None:
        return before
    square = before.mg.real**2 + before.mg.imag**2
    if before.rms.dtype.kind == "c":
        square = before.mg.real**2 + 1j * before.mg.imag**2
        least = square * before.rms.real.dtype.type(LEAST[state_dtype])
        rms = np.maximum(before.rms.real, least.real) + 1j * np.maximum(before.rms.imag, least.imag)
        return before._replace(rms=rms.astype(before.rms.dtype))
    return before._replace(rms=np.maximum(before.rms, square * before.rms.dtype.type(LEAST[state_dtype])))


def assert_compact_step(before, after, gradient, hyper, dtype):
    """Compare a step with the oracle, in which slots are not rounded when they are stored."""
    before = decoded(before, hyper.state_dtype)
    expected = expected_step(before, gradient, hyper).state
    full = {n: getattr(expected, n) for n in ("rms", "momentum", "mg") if getattr(after, n) is not None}
    exact = {n: np.asarray(x, getattr(after, n).dtype) for n, x in full.items()}
    assert_step(before, after._replace(**exact), gradient, hyper, dtype)
    for name, x in exact.items():
        relative, of_squares, of_others = ERRORS[hyper.state_dtype]
        kept = getattr(after, name)
        of_largest = of_squares if name == "rms" else of_others
        for part in (np.real, np.imag):
            largest = np.max([np.abs(x.real), np.abs(x.imag)], initial=0)
            allowed = 1.001 * relative * np.abs(part(x)) + (1.01 * of_largest + 1e-6) * largest
            assert (np.abs(part(kept) - part(x)) <= allowed).all(), name


@each_state
@each_dtype
@each_variant
@pytest.mark.parametrize("layout", ["list", "strided", "as reals"])
def test_a_step_is_that_of_the_oracle_from_the_numbers_that_the_codes_stand_for(
    xp, state_dtype, dtype, variant, layout
):
    if layout == "as reals" and dtype not in COMPLEX:
        pytest.skip("is for complex numbers")
    variables = arrays_of(xp, dtype, SHAPES if layout == "list" else [(6, 40)])
    if layout == "strided":
        variables = [xp.repeat(v, 2, axis=1)[:, ::2].T for v in variables]
    opt = RMSprop(0.01, state_dtype=state_dtype, complex_as_real=layout == "as reals", **variant)
    opt.build(variables)
    for step in range(3):
        before, hyper = [snapshot(opt, v) for v in variables], hyper_of(opt)
        stepped(opt, variables, dtype, [step])
        for k, (v, b) in enumerate(zip(variables, before, strict=True)):
            assert_compact_step(b, snapshot(opt, v), drawn(100 * step + k, v.shape, dtype), hyper, dtype)


@each_state
@pytest.mark.parametrize("variant", [{}, {"momentum": 0.5, "centered": True, "clipvalue": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_state_of_halves_is_that_of_single_precision(xp, state_dtype, variant, dtype):
    half, single = arrays_of(xp, dtype, [(700,)]), [xp.zeros(700, xp.float32)]
    one, two = (RMSprop(0.01, state_dtype=state_dtype, **variant) for _ in range(2))
    for step in range(3):
        gradient = drawn(step, (700,), dtype)
        one.apply_gradients([(xp.asarray(gradient), half[0])])
        two.apply_gradients([(xp.asarray(gradient.astype(np.float32)), single[0])])
    one, two = codes(one, half[0]), codes(two, single[0])
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].tobytes() == two[name].tobytes(), name


@each_state
@pytest.mark.parametrize("variant", VARIANTS[::2], ids=str)
@pytest.mark.parametrize(("dtype", "real"), [("complex64", "float32"), ("complex128", "float64")])
def test_real_and_imaginary_part_that_count_as_two_reals_have_the_codes_of_reals(
    xp, state_dtype, variant, dtype, real
):
    pairs = xp.asarray(drawn(0, (1024, 2), real))
    one = RMSprop(0.01, state_dtype=state_dtype, complex_as_real=True, **variant)
    two = RMSprop(0.01, state_dtype=state_dtype, **variant)
    numbers = pairs.copy().view(dtype).reshape(-1)
    for step in range(3):
        gradient = xp.asarray(drawn(step, (1024, 2), real))
        one.apply_gradients([(gradient.view(dtype).reshape(-1), numbers)])
        two.apply_gradients([(gradient, pairs)])
    assert to_host(numbers).tobytes() == to_host(pairs).tobytes()
    one, two = codes(one, numbers), codes(two, pairs)
    for name in one:
        assert one[name].tobytes() == two[name].tobytes(), name


@each_state
@pytest.mark.parametrize("dtype", COMPLEX)
def test_real_and_imaginary_part_of_a_complex_slot_have_a_code_each_and_a_block_one_scale(xp, state_dtype, dtype):
    v = xp.asarray(drawn(0, (2, 1000), dtype))
    opt = stepped(RMSprop(momentum=0.9, centered=True, state_dtype=state_dtype), [v], dtype)
    found = {name: (len(array), array.dtype.itemsize) for name, array in codes(opt, v).items()}
    size = 1 if state_dtype == "uint8" else 2
    scales = 4 if state_dtype == "uint8" else 0  # two for each row
    assert found["rms", "codes"] == (2000, size)
    for name in ("momentum", "mg"):
        assert found[name, "codes"] == (4000, size)
    for name in ("rms", "momentum", "mg"):
        assert found[name, "scales"] == (scales, np.dtype(dtype).itemsize // 2)


@each_state
@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex_numbers_are_rounded_another_way_in_each_part_and_each_step(xp, state_dtype, dtype):
    v = xp.zeros(512, dtype)
    opt = RMSprop(momentum=0.9, centered=True, state_dtype=state_dtype)
    constant, history = xp.full(512, 1 + 1j, dtype), []
    for _ in range(6):
        opt.apply_gradients([(constant, v)])
        history.append(opt.get_slot(v, "mg").numpy())
    kept = np.array(history)
    assert np.mean(np.std(kept.real - kept.imag, axis=1) > 0) > 0.5  # both parts get the same gradients
    assert np.mean(np.std(kept.real, axis=1) > 0) > 0.5


@each_state
@each_dtype
def test_a_list_gives_the_same_bits_as_its_arrays_one_by_one(xp, state_dtype, dtype):
    settings = {"momentum": 0.5, "centered": True, "clipvalue": 1.0, "state_dtype": state_dtype}
    together, alone = arrays_of(xp, dtype), arrays_of(xp, dtype)
    opt = RMSprop(0.01, **settings)
    singles = [RMSprop(0.01, **settings) for _ in alone]
    for step in range(3):
        stepped(opt, together, dtype, [step])
        for k, (single, v) in enumerate(zip(singles, alone, strict=True)):
            gradient = xp.asarray(drawn(100 * step + k, v.shape, dtype))
            single.apply_gradients([(gradient, v)])
    for a, b in zip(together, alone, strict=True):
        assert to_host(a).tobytes() == to_host(b).tobytes()
        assert np.isfinite(to_host(a).astype(complex)).all()


# Sparse gradients


def gathered(v, rows, values):
    """Return a sparse gradient as a dense one, summed in the dtype of the computation."""
    total = np.zeros(v.shape, dtypes.COMPUTE[dtypes.name_of(v.dtype)])
    for row, value in zip(rows, values, strict=True):
        total[row] += value.astype(total.dtype)
    return total


@each_state
@each_dtype
@pytest.mark.parametrize("variant", VARIANTS[::2], ids=str)
@pytest.mark.parametrize("width", [70, 3])
@pytest.mark.parametrize("complex_as_real", [False, True])
def test_sparse_rows_are_updated_by_the_sums_of_their_gradients_and_others_keep_their_bits(
    xp, state_dtype, dtype, variant, width, complex_as_real
):
    if state_dtype == "uint8" and width < 64:
        pytest.skip("is refused")
    if complex_as_real and dtype not in COMPLEX:
        pytest.skip("is for complex numbers")
    v = xp.asarray(drawn(0, (9, width), dtype))
    opt = RMSprop(0.01, state_dtype=state_dtype, complex_as_real=complex_as_real, **variant)
    stepped(opt, [v], dtype)
    rows = np.array([7, 2, 7, 7, 0])
    values = (drawn(1, (5, width), dtype).astype(complex).real / 4).astype(drawn(1, (), dtype).dtype)
    before, hyper, kept = snapshot(opt, v), hyper_of(opt), to_host(v).copy()
    opt.apply_gradients([(IndexedSlices(xp.asarray(values), xp.asarray(rows)), v)])
    after, total, others = snapshot(opt, v), gathered(kept, rows, values), [1, 3, 4, 5, 6, 8]
    for a, b in zip(after, before, strict=True):
        if a is not None:
            assert a[others].tobytes() == b[others].tobytes()
    listed = [[None if x is None else x[[0, 2, 7]] for x in state] for state in (before, after)]
    listed = [type(before)(*state) for state in listed]
    assert_compact_step(*listed, total[[0, 2, 7]], hyper, dtype)


@each_state
@each_dtype
@pytest.mark.parametrize("shape", [(20,), (20, 70)])
@pytest.mark.parametrize("complex_as_real", [False, True])
def test_without_lazy_all_averages_decay(xp, state_dtype, dtype, shape, complex_as_real):
    settings = {"state_dtype": state_dtype, "complex_as_real": complex_as_real}
    dense, sparse = (xp.asarray(drawn(9, shape, dtype)) for _ in range(2))
    a = stepped(RMSprop(0.01, **settings), [dense], dtype)
    b = stepped(RMSprop(0.01, lazy=False, **settings), [sparse], dtype)
    values = drawn(8, (2, *shape[1:]), dtype)
    gradient = np.zeros(shape, values.dtype)
    gradient[[5, 3]] = values
    a.apply_gradients([(xp.asarray(gradient), dense)])
    b.apply_gradients([(IndexedSlices(xp.asarray(values), xp.asarray([5, 3])), sparse)])
    assert bits(a, [dense]) == bits(b, [sparse])


@each_dtype
@each_variant
@pytest.mark.parametrize("lazy", [True, False])
def test_windows_are_updated_in_bfloat16_like_the_same_elements_of_a_flat_variable(xp, dtype, variant, lazy):
    one, two = xp.asarray(drawn(0, (6, 8), dtype)), xp.asarray(drawn(0, (48,), dtype))
    a, b = (RMSprop(0.01, state_dtype="bfloat16", lazy=lazy, **variant) for _ in range(2))
    starts, values = [(0, 1), (2, 3), (1, 2)], drawn(1, (3, 2, 3), dtype)
    places = [8 * (y + i) + x + j for y, x in starts for i in range(2) for j in range(3)]
    for _ in range(3):
        a.apply_gradients([(Windows(xp.asarray(values), starts), one)])
        b.apply_gradients([(IndexedSlices(xp.asarray(values.reshape(-1)), xp.asarray(places)), two)])
    assert bits(a, [one])[0] == bits(b, [two])[0]
    assert [w.tobytes() for w in a.get_weights()] == [w.tobytes() for w in b.get_weights()]


@each_dtype
def test_windows_and_short_rows_are_refused_in_8_bits_and_nothing_changes(xp, dtype):
    v = xp.asarray(drawn(0, (9, 8), dtype))
    opt = stepped(RMSprop(state_dtype="uint8"), [v], dtype)
    before = bits(opt, [v])
    values = xp.asarray(drawn(0, (1, 8), dtype))
    for gradient in (IndexedSlices(values, xp.asarray([3])), Windows(values[None, :, :2], [(0, 0)])):
        with pytest.raises(TypeError, match=r"shape \(9, 8\).*bfloat16"):
            opt.apply_gradients([(gradient, v)])
    assert bits(opt, [v]) == before


# Files and copies


@each_state
@each_dtype
@pytest.mark.parametrize("complex_as_real", [False, True])
def test_files_keep_all_bits_and_what_is_restored_goes_on_with_the_same(
    xp, state_dtype, dtype, complex_as_real, tmp_path
):
    settings = {"momentum": 0.9, "centered": True, "complex_as_real": complex_as_real, "state_dtype": state_dtype}
    variables = dict(enumerate(arrays_of(xp, dtype)))
    opt = stepped(RMSprop(0.01, **settings), variables.values(), dtype)
    path = tmp_path / "state"
    opt.save(path, variables)
    others = {k: xp.zeros_like(v) for k, v in variables.items()}
    other = RMSprop(0.01, **settings)
    other.restore(path, others)
    loaded = RMSprop.load(path)
    loaded.build(thirds := {k: v.copy() for k, v in others.items()})
    for each, arrays in ((other, others), (loaded, thirds)):
        for k, v in variables.items():
            kept = codes(each, arrays[k])
            for name, array in codes(opt, v).items():
                assert kept[name].tobytes() == array.tobytes()
    expected = bits(stepped(opt, variables.values(), dtype, range(3, 6)), variables.values())
    for each, arrays in ((other, others), (loaded, thirds)):
        assert bits(stepped(each, arrays.values(), dtype, range(3, 6)), arrays.values()) == expected


@each_state
@each_dtype
def test_numbers_that_are_assigned_come_back_within_the_documented_error_and_decoded_ones_exactly(
    xp, state_dtype, dtype
):
    v = xp.asarray(drawn(0, (3, 700), dtype))
    opt = RMSprop(momentum=0.9, state_dtype=state_dtype)
    opt.build([v])
    for name in ("rms", "momentum"):
        slot = opt.get_slot(v, name)
        numbers = drawn(5, slot.shape, dtypes.name_of(slot.dtype))
        numbers = np.abs(numbers) if name == "rms" else numbers
        slot.assign(xp.asarray(numbers))
        kept = slot.numpy()
        relative, of_squares, of_others = ERRORS[state_dtype]
        for part in (np.real, np.imag):
            allowed = relative / 2 * np.abs(part(numbers))
            allowed = allowed + (of_squares if name == "rms" else of_others) * np.abs(numbers).max()
            assert (np.abs(part(kept) - part(numbers)) <= 1.0001 * allowed).all()
        slot.assign(kept)
        assert slot.numpy().tobytes() == kept.tobytes()
        assert type(slot.array) is type(v)
        assert slot.array.dtype == slot.dtype
