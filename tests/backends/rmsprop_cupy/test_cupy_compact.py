"""State in fewer bits on a device: the bits of the host, launches, waits, traffic, graphs, and files."""

import copy
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, Windows, schedules

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytest.importorskip("rmsprop_cupy")
from rmsprop_cupy import kernels  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
BY_DAY = [
    pytest.param(d, marks=[pytest.mark.nightly] * (d in ("float16", "float64", "complex128"))) for d in DTYPES
]
SHAPES = [(), (0,), (700,), (3, 5), (4, 65), (2, 600), (1200,)]
RICH = {"momentum": 0.5, "centered": True, "nesterov": True, "weight_decay": 0.1, "use_ema": True}
VARIANTS = [{}, {"centered": True, "clipvalue": 1.0}, RICH | {"bias_correction": True, "decoupled": True}]

SPARSE = [
    {},
    VARIANTS[2],
    RICH | {"lazy": False, "momentum": 0.0},
    {"lazy": False, "momentum": 0.5, "weight_decay": 0.1, "decoupled": True},
]

each_state = pytest.mark.parametrize("state_dtype", ["bfloat16", "uint8"])
each_dtype = pytest.mark.parametrize("dtype", BY_DAY)


@pytest.fixture(autouse=True)
def errors_stay_in_their_test():
    yield
    cupy.cuda.Device().synchronize()


@pytest.fixture
def gpusim():
    """Return the simulator, which counts what a device does."""
    return sys.modules.get("gpusim") or pytest.skip("only a simulator counts launches")


@pytest.fixture
def unfused(monkeypatch):
    """Let multiplications and additions be rounded each, and keep subnormal numbers, as on the host."""
    monkeypatch.setattr(kernels, "OPTIONS", ("-fmad=false", "-ftz=false"))


def drawn(seed, shape, dtype="float32"):
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))
    if dtype.startswith("complex"):
        array = array + 1j * rng.standard_normal(shape)
    return np.asarray(array).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def to_host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)


def state(opt, variables):
    """Return the bytes of variables and of all that their slots are kept in."""
    found = []
    for v in variables:
        found.append(to_host(v).tobytes())
        for name in opt.get_slot_names():
            slot = opt.get_slot(v, name)
            parts = getattr(slot, "parts", None) or {"": slot.array}
            found += [to_host(part).tobytes() for part in parts.values()]
    return found


# The bits of the host


def strided(array):
    return array if array.ndim == 0 else np.repeat(array, 2, axis=-1)[..., ::2].T


def on_device(array):
    """Return the array on the device, with the same strides."""
    whole = array if array.base is None else array.base
    if array is whole or array.flags.c_contiguous:
        return cupy.asarray(array)
    return cupy.repeat(cupy.asarray(np.ascontiguousarray(array.T)), 2, axis=-1)[..., ::2].T


@each_state
@each_dtype
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.parametrize("layout", ["list", "strided", "as reals", "grouped"])
def test_without_fused_operations_the_bits_are_those_of_the_host(unfused, state_dtype, dtype, settings, layout):
    if dtype.startswith("complex") and "clipvalue" in settings and layout != "as reals":
        pytest.skip("the moduli of complex numbers come from different hypot functions")
    if layout == "as reals" and not dtype.startswith("complex"):
        pytest.skip("is for complex numbers")
    host = [drawn(k, shape, dtype) for k, shape in enumerate(SHAPES)]
    host = [strided(a) for a in host] if layout == "strided" else host
    device = [on_device(a) for a in host]
    options = settings | {"state_dtype": state_dtype, "complex_as_real": layout == "as reals"}
    one, two = RMSprop(0.01, **options), RMSprop(0.01, **options)
    for opt, arrays in ((one, host), (two, device)):
        opt.build(arrays)
        if layout == "grouped":
            opt.group(arrays[::2], lr_mult=0.5, wd_mult=0.25)
    for step in range(3):
        gradients = [drawn(10 * step + k, a.shape, dtype) for k, a in enumerate(host)]
        one.apply_gradients(zip(gradients, host, strict=True))
        two.apply_gradients(zip(map(cupy.asarray, gradients), device, strict=True))
    assert state(one, host) == state(two, device)


@each_state
@each_dtype
@pytest.mark.parametrize("settings", SPARSE, ids=str)
@pytest.mark.parametrize("kind", ["rows", "often", "single", "windows"])
def test_sparse_gradients_leave_the_bits_of_the_host(unfused, state_dtype, dtype, settings, kind):
    decays = settings.get("lazy") is False and not settings["momentum"]
    if state_dtype == "uint8" and kind not in ("rows", "often") and not decays:
        pytest.skip("is refused")
    host = drawn(0, (9, 70) if kind in ("rows", "often") else (12,) if kind == "single" else (9, 6), dtype)
    device = cupy.asarray(host)
    one, two = (RMSprop(0.01, state_dtype=state_dtype, **settings) for _ in range(2))
    for step in range(3):
        dense = drawn(50 + step, host.shape, dtype)
        one.apply_gradients([(dense, host)])
        two.apply_gradients([(cupy.asarray(dense), device)])
        rows = [7, 2, 7, 7, 0] * (60 if kind == "often" else 1)
        if kind == "windows":
            values, starts = drawn(step, (3, 2, 3), dtype), [(0, 1), (1, 2), (7, 3)]
            gradients = [Windows(values, starts), Windows(cupy.asarray(values), starts)]
        else:
            values = drawn(step, (len(rows), *host.shape[1:]), dtype)
            gradients = [IndexedSlices(values, np.array(rows)), IndexedSlices(*map(cupy.asarray, (values, rows)))]
        one.apply_gradients([(gradients[0], host)])
        two.apply_gradients([(gradients[1], device)])
    assert state(one, [host]) == state(two, [device])


@each_state
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("size", [1e-30, 1e17, 1.2e19, 1.8e19])
def test_gradients_of_any_size_leave_the_codes_of_the_host(unfused, state_dtype, dtype, size):
    host, settings = np.zeros(100, dtype), {"momentum": 0.5, "state_dtype": state_dtype}
    device, one, two = cupy.zeros(100, dtype), RMSprop(size, **settings), RMSprop(size, **settings)
    gradient = (np.linspace(-1, 1, 100) * size).astype(dtype)
    for _ in range(3):
        one.apply_gradients([(gradient, host)])
        two.apply_gradients([(cupy.asarray(gradient), device)])
    assert state(one, [host]) == state(two, [device])


@each_state
@pytest.mark.parametrize("size", [1e-15, 1.0, 1.2e19, 1.8e19])
def test_compiled_as_usual_codes_stand_for_the_numbers_of_full_state(state_dtype, size):
    gradient = cupy.asarray((np.linspace(0.1, 1, 300) * size).astype(np.float32))
    small, full = RMSprop(0.01, rho=0.5, state_dtype=state_dtype), RMSprop(0.01, rho=0.5)
    for opt in (small, full):
        v = cupy.zeros(300, cupy.float32)
        opt.apply_gradients([(gradient, v)])
    one, two = (opt.get_weights()[1] for opt in (small, full))
    np.testing.assert_allclose(one, two, rtol=1 / 8 if state_dtype == "uint8" else 1 / 128)
    assert (two > 0).all()


@each_state
def test_what_is_nan_or_infinite_on_the_host_is_so_on_the_device_and_spoils_no_other_element(unfused, state_dtype):
    settings = {"momentum": 0.9, "centered": True, "state_dtype": state_dtype}
    host, device = np.zeros(100, np.float32), cupy.zeros(100, cupy.float32)
    one, two = RMSprop(0.01, **settings), RMSprop(0.01, **settings)
    good = np.linspace(1, 2, 100, dtype=np.float32)
    bad = good.copy()
    bad[[3, 4, 5, 8]] = np.nan, np.inf, 1e30, -np.inf
    bad[7] = np.uint32(0xFFFFFFFF).view(np.float32)
    for gradient in (good, bad, good):
        with np.errstate(all="ignore"):
            one.apply_gradients([(gradient, host)])
        two.apply_gradients([(cupy.asarray(gradient), device)])
    for a, b in zip([host, *one.get_weights()], [device.get(), *two.get_weights()], strict=True):
        np.testing.assert_array_equal(a, b)


@each_state
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_centered_variance_is_no_smaller_on_the_device_than_what_rounding_may_hide(unfused, state_dtype, dtype):
    settings = {"centered": True, "rho": 0.5, "state_dtype": state_dtype}
    host, device = np.zeros(100, dtype), cupy.zeros(100, dtype)
    one, two = RMSprop(0.01, **settings), RMSprop(0.01, **settings)
    gradient = np.linspace(1, 2, 100).astype(dtype)
    for _ in range(12):  # until the mean of squares is the square of the mean
        one.apply_gradients([(gradient, host)])
        two.apply_gradients([(cupy.asarray(gradient), device)])
    assert state(one, [host]) == state(two, [device])


def test_a_gradient_in_the_memory_of_a_variable_counts_as_it_was_before_the_step():
    starts = [drawn(k, (700,)) for k in range(2)]
    host, device = [a.copy() for a in starts], [cupy.asarray(a) for a in starts]
    RMSprop(0.1, state_dtype="uint8").apply_gradients(zip([a.copy() for a in host[::-1]], host, strict=True))
    RMSprop(0.1, state_dtype="uint8").apply_gradients(zip(device[::-1], device, strict=True))
    for a, b in zip(host, device, strict=True):
        np.testing.assert_allclose(a, b.get(), rtol=1e-5)


# Launches, waits and traffic

STEADY = [
    ({}, 1),
    ({"momentum": 0.9, "centered": True, "clipvalue": 1.0}, 1),
    ({"global_clipnorm": 1.0, "clipnorm": 0.5}, 3),
    ({"nonfinite": "skip"}, 3),
    ({"nonfinite": "skip", "global_clipnorm": 1.0, "momentum": 0.9}, 3),
    (RICH, 1),
]


@each_state
@pytest.mark.parametrize(("settings", "launches"), STEADY, ids=str)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_steady_step_of_300_arrays_is_one_launch_and_waits_for_nothing(
    gpusim, state_dtype, settings, launches, is_grouped
):
    rng = np.random.default_rng(0)
    shapes = [(int(n),) if n % 3 else (int(n) // 3, 3) for n in rng.integers(0, 200, 300)]
    variables = [cupy.ones(shape, cupy.float32) for shape in shapes]
    opt = RMSprop(schedules.ExponentialDecay(0.1, 10, 0.5) if settings == {} else 0.01, state_dtype=state_dtype)
    for name, value in settings.items():
        setattr(opt, name, value)
    opt.build(variables)
    if is_grouped:
        opt.group(variables[::3], lr_mult=0.5, wd_mult=0.0)
    gradients = [cupy.ones_like(v) for v in variables]
    for _ in range(3):
        opt.apply_gradients(list(zip(gradients, variables, strict=True)))
    gpusim.reset_counters()
    opt.apply_gradients(list(zip(gradients, variables, strict=True)))
    counted = gpusim.counters()
    assert counted["kernel_launches"] == launches
    assert counted["synchronisations"] == counted["mallocs"] == counted["frees"] == 0
    assert counted["memcpy_async_h2d"] <= int(is_grouped)  # the numbers of groups, if steps differ in these


@pytest.mark.parametrize(
    ("state_dtype", "settings", "most"),
    [
        ("uint8", {}, 14.1),
        ("bfloat16", {}, 16.1),
        ("uint8", {"momentum": 0.9}, 16.2),
        ("uint8", {"momentum": 0.9, "centered": True}, 18.3),
        ("bfloat16", {"momentum": 0.9, "centered": True}, 24.1),
    ],
    ids=str,
)
def test_a_step_moves_the_codes_and_little_else(gpusim, state_dtype, settings, most):
    """In float32, full state would move 20 bytes for each element, 28 with momentum, and 36 with both."""
    size = 64 * 1024
    v, gradient = cupy.ones(size, cupy.float32), cupy.asarray(drawn(0, size))
    opt = RMSprop(0.01, state_dtype=state_dtype, **settings)
    for _ in range(30):  # until scales seldom change
        opt.apply_gradients([(gradient, v)])
    before = moved(gpusim)
    opt.apply_gradients([(gradient, v)])
    pairs = zip(before, moved(gpusim), strict=True)
    ((kernel, number),) = [(k, after - number) for (number, _), (after, k) in pairs if after > number]
    assert 13.9 < number / size <= most
    assert kernel.f64 == kernel.approx == []
    assert kernel.atomics == 0


def moved(gpusim):
    """Return how many bytes each kernel has loaded and stored so far."""
    cupy.cuda.Device().synchronize()
    return [
        (sum(size * count for each in (k.loaded, k.stored) for size, count in each.items()), k)
        for k in gpusim.report("rmsprop_compact")
    ]


@each_state
def test_sparse_steps_wait_for_nothing_and_are_sorted_together(gpusim, state_dtype):
    tables = [cupy.ones((height, 64), cupy.float32) for height in (100, 7, 50)]
    rows = [IndexedSlices(cupy.ones((4, 64), cupy.float32), cupy.asarray([5, 3, 5, 0])) for _ in tables]
    opt = RMSprop(momentum=0.9, state_dtype=state_dtype)
    for _ in range(2):
        opt.apply_gradients(zip(rows, tables, strict=True))
    gpusim.reset_counters()
    opt.apply_gradients(zip(rows, tables, strict=True))
    counted = gpusim.counters()
    assert [counted[what] for what in ("synchronisations", "memcpy_d2h", "memcpy_async_d2h")] == [0, 0, 0]
    assert counted["kernel_launches"] == 2 + len(tables)


@each_state
def test_rows_out_of_range_are_left_out_and_reported_once(state_dtype):
    table = cupy.ones((3, 64))
    gradient = IndexedSlices(cupy.ones((5, 64)), cupy.asarray([-7, 1, 3, 1, 2**40]))
    opt = RMSprop(0.1, state_dtype=state_dtype)
    opt.apply_gradients([(gradient, table)])
    cupy.cuda.Device().synchronize()
    assert (table.get() < 1).all(1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"an earlier step left out 3, from -7 to 1099511627776"):
        opt.get_weights()
    opt.get_weights()


# Steps that are left out, and graphs


@each_state
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "global_clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("kind", ["dense", "rows", "decaying rows", "windows"])
def test_rounding_goes_on_after_steps_that_the_device_left_out_as_if_there_were_none(state_dtype, settings, kind):
    if state_dtype == "uint8" and kind == "windows":
        pytest.skip("is refused")
    results = []
    for bad in ((), (1, 3, 4)):
        v = cupy.asarray(drawn(0, (4, 64)))
        opt = RMSprop(0.01, nonfinite="skip", state_dtype=state_dtype, lazy=kind != "decaying rows", **settings)
        for step in range(6):
            for is_bad in (True, False) if step in bad else (False,):
                gradient = cupy.asarray(drawn(step, v.shape)) * (np.nan if is_bad else 1)
                if "rows" in kind:
                    gradient = IndexedSlices(gradient, cupy.asarray([0, 3, 2, 3]))
                elif kind == "windows":
                    gradient = Windows(gradient.reshape(2, 2, 64)[:, :, :32], [(0, 5), (1, 7)])
                opt.apply_gradients([(gradient, v)])
        results.append(state(opt, [v]))
        assert (int(opt.iterations), opt.skipped) == (6, len(bad))
    assert results[0] == results[1]


@pytest.fixture
def stream():
    """Return the current stream, one that can capture."""
    with cupy.cuda.Stream(non_blocking=True) as stream:
        yield stream
        if stream.is_capturing():
            stream.end_capture()
        stream.synchronize()


@each_state
@pytest.mark.parametrize("settings", [{}, RICH, {"nonfinite": "skip", "clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("is_strided", [False, True])
def test_replays_are_bitwise_steps(stream, state_dtype, settings, dtype, is_strided):
    shapes = [(700,), (4, 65), (3,), (2, 600)]
    arrays = [drawn(k, shape, dtype) for k, shape in enumerate(shapes)]
    variables, twins = ([on_device(strided(a) if is_strided else a) for a in arrays] for _ in range(2))
    gradients = [cupy.asarray(drawn(9 + k, v.shape, dtype)) for k, v in enumerate(variables)]
    rate = schedules.ExponentialDecay(0.1, 10, 0.5) if "nonfinite" not in settings else 0.1
    one, two = (RMSprop(rate, state_dtype=state_dtype, **settings) for _ in range(2))
    for opt, each in ((one, variables), (two, twins)):
        opt.build(each)
        opt.group(each[1], lr_mult=0.5, wd_mult=2.0)
    stream.begin_capture()
    one.apply_gradients(zip(gradients, variables, strict=True))
    graph = stream.end_capture()
    kept = [g.copy() for g in gradients]
    for step in range(6):
        for gradient, good in zip(gradients, kept, strict=True):
            gradient[...] = good * (-0.9) ** step
        if "nonfinite" in settings and step in (2, 3):
            gradients[1][...] = np.inf
        one.advance()
        graph.launch(stream)
        two.apply_gradients(zip(gradients, twins, strict=True))
    assert state(one, variables) == state(two, twins)
    assert int(one.iterations) == int(two.iterations)


# Files and copies


@each_state
@each_dtype
def test_files_go_from_the_device_to_the_host_and_back_and_both_go_on_with_the_same_bits(
    unfused, state_dtype, dtype, tmp_path
):
    settings = {"momentum": 0.9, "centered": True, "state_dtype": state_dtype}
    device = {str(k): cupy.asarray(drawn(k, shape, dtype)) for k, shape in enumerate(SHAPES)}
    one = RMSprop(0.01, **settings)
    stepped(one, device, dtype, range(3))
    one.save(tmp_path / "of device", device)
    host = {name: np.zeros(v.shape, v.get().dtype) for name, v in device.items()}
    two = RMSprop(0.01, **settings)
    two.restore(tmp_path / "of device", host)
    assert state(one, device.values()) == state(two, host.values())
    stepped(one, device, dtype, range(3, 5))
    stepped(two, host, dtype, range(3, 5))
    assert state(one, device.values()) == state(two, host.values())
    two.save(tmp_path / "of host", host)
    again = {name: cupy.zeros_like(v) for name, v in device.items()}
    three = RMSprop.load(tmp_path / "of host")
    three.build(again)
    three.restore(tmp_path / "of host", again)
    assert state(three, again.values()) == state(two, host.values())
    assert (tmp_path / "of host").stat().st_size == (tmp_path / "of device").stat().st_size


def stepped(opt, variables, dtype, steps):
    for step in steps:
        pairs = []
        for k, v in enumerate(variables.values()):
            gradient = drawn(100 * step + k, v.shape, dtype)
            pairs.append((gradient if isinstance(v, np.ndarray) else cupy.asarray(gradient), v))
        opt.apply_gradients(pairs)


@each_state
def test_copies_and_pickles_go_on_with_the_same_bits(state_dtype):
    variables = {str(k): cupy.asarray(drawn(k, shape)) for k, shape in enumerate(SHAPES)}
    opt = RMSprop(momentum=0.9, state_dtype=state_dtype)
    stepped(opt, variables, "float32", range(2))
    others = [pickle.loads(pickle.dumps((opt, variables))), copy.deepcopy((opt, variables))]
    stepped(opt, variables, "float32", range(2, 4))
    for other, arrays in others:
        stepped(other, arrays, "float32", range(2, 4))
        assert state(other, arrays.values()) == state(opt, variables.values())


@each_state
def test_a_constraint_that_fails_undoes_the_step(state_dtype):
    v = Variable(cupy.ones(700, cupy.float32))
    opt = RMSprop(momentum=0.9, state_dtype=state_dtype)
    opt.apply_gradients([(cupy.asarray(drawn(0, 700)), v)])
    slots = [part.get() for name in opt.get_slot_names() for part in opt.get_slot(v, name).parts.values()]
    before = v.numpy().copy()
    v.constraint = lambda w: 1 / 0
    with pytest.raises(ZeroDivisionError):
        opt.apply_gradients([(cupy.asarray(drawn(1, 700)), v)])
    after = [part.get() for name in opt.get_slot_names() for part in opt.get_slot(v, name).parts.values()]
    assert v.numpy().tobytes() == before.tobytes()
    assert [a.tobytes() for a in after] == [a.tobytes() for a in slots]


@each_state
def test_what_is_not_asked_for_is_not_compiled(gpusim, state_dtype):
    loaded = len(gpusim.report("rmsprop_compact"))
    RMSprop(0.123, momentum=0.9, maximize=True).apply_gradients([(cupy.ones(3), cupy.ones(3))])
    assert len(gpusim.report("rmsprop_compact")) == loaded
