"""Windows of CuPy arrays: the same bits as their elements one by one, in one launch and without waiting."""

import gc
import os
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Windows

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
cupyx = pytest.importorskip("cupyx")
from rmsprop_cupy import kernels  # noqa: E402
from rmsprop_cupy.counters import Misses  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def errors_stay_in_their_test():
    yield
    cupy.cuda.Device().synchronize()


@pytest.fixture
def unfused(monkeypatch):
    """Let multiplications and additions be rounded each, and keep subnormal numbers, as on the host."""
    monkeypatch.setattr(kernels, "OPTIONS", ("-fmad=false", "-ftz=false"))


@pytest.fixture
def gpusim():
    return sys.modules.get("gpusim") or pytest.skip("only in the simulator")


def drawn(shape, patch, count, dtype="float32", seed=0):
    """Return a variable, the values of windows and their starts, on the host; some windows are the same."""
    rng = np.random.default_rng(seed)
    starts = np.stack([rng.integers(0, n - p + 1, count) for n, p in zip(shape, patch, strict=True)], axis=1)
    starts[1::3] = starts[0]
    numbers = [rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in (shape, (count, *patch))]
    kind = np.dtype(cupy.dtype(dtype)) if dtype != "bfloat16" else cupy.dtype(dtype)
    return *[(n if kind.kind == "c" else n.real).astype(kind) for n in numbers], starts


def indices_of(shape, patch, starts):
    """Return the indices in the flat variable of all elements, window by window."""
    flat = np.arange(np.prod(shape)).reshape(shape)
    parts = [flat[tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))] for start in starts]
    return np.concatenate([part.reshape(-1) for part in parts])


def assert_same_bits(arrays, others):
    for a, b in zip(arrays, others, strict=True):
        assert cupy.asnumpy(a).tobytes() == cupy.asnumpy(b).tobytes()


SHAPES = [((30,), (7,)), ((9, 8), (3, 5)), ((4, 5, 6), (2, 3, 3))]
SETTINGS = [
    {},
    {"momentum": 0.9, "centered": True, "clipvalue": 0.5},
    {"momentum": 0.9, "nesterov": True, "clipnorm": 1.0, "complex_as_real": True},
    {"weight_decay": 0.1, "decoupled": True, "lazy": False, "use_ema": True},
    {"global_clipnorm": 1.0, "nonfinite": "skip", "bias_correction": True},
]
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_have_the_bits_of_their_elements_one_by_one(unfused, dtype, settings):
    if "GPUSIM_FUZZ" in os.environ and dtype == "complex128" and "clipvalue" in settings:
        pytest.skip("the modulus takes approximate instructions, which err another way in each kernel here")
    shape, patch = SHAPES[(DTYPES.index(dtype) + SETTINGS.index(settings)) % 3]
    host, values, starts = drawn(shape, patch, 7, dtype)
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    image, flat = cupy.asarray(host), cupy.asarray(host.reshape(-1))
    indices = indices_of(shape, patch, starts)
    elements = IndexedSlices(cupy.asarray(values.reshape(-1)), cupy.asarray(indices))
    for _ in range(2):
        one.apply_gradients([(Windows(cupy.asarray(values), starts), image)])
        two.apply_gradients([(elements, flat)])
    assert_same_bits([image, *one.get_weights()], [flat, *two.get_weights()])
    if settings.get("lazy", True):
        is_touched = (cupy.asnumpy(image) != host).reshape(-1)
        assert set(np.flatnonzero(is_touched)) <= set(indices)
        assert is_touched.sum() > len(set(indices)) / 2  # the others receive a sum of 0


@pytest.mark.parametrize("settings", [SETTINGS[0], {**SETTINGS[1], "clipvalue": None}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_windows_have_the_bits_of_the_host(unfused, dtype, settings):
    host, values, starts = drawn((9, 8), (3, 5), 7, dtype)
    image, flat = cupy.asarray(host), host.reshape(-1)
    elements = IndexedSlices(values.reshape(-1), indices_of(host.shape, (3, 5), starts))
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    for _ in range(2):
        one.apply_gradients([(Windows(cupy.asarray(values), starts), image)])
        two.apply_gradients([(elements, flat)])
    assert_same_bits([image, *one.get_weights()], [host, *two.get_weights()])


def stepped(image, values, starts, settings=SETTINGS[1]):
    """Return a variable and its state after two steps."""
    opt = RMSprop(0.1, **settings)
    for _ in range(2):
        opt.apply_gradients([(Windows(values, starts), image)])
    return [image, *opt.get_weights()]


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_variable_and_values_may_have_any_strides(dtype):
    host, values, starts = drawn((4, 5, 6), (2, 3, 3), 7, dtype)
    expected = stepped(cupy.asarray(host), cupy.asarray(values), starts)
    larger = cupy.zeros((6, 10, 6), dtype)
    parts = [larger[1:-1, ::2], larger[4:0:-1, 1::2, ::-1], cupy.asfortranarray(cupy.zeros(host.shape, dtype))]
    for part in parts:
        part[...] = cupy.asarray(host)
    for part, given in zip(parts, [values, values[::-1], np.asfortranarray(values)], strict=True):
        gradient = cupy.asarray(given)[::-1] if given.strides[0] < 0 else cupy.asarray(given)
        assert_same_bits([a.copy() for a in stepped(part, gradient, starts)], expected)
    assert not larger[[0, -1]].any()


def test_starts_may_be_on_the_host_or_on_the_device():
    host, values, starts = drawn((9, 8), (3, 5), 7)
    forms = [
        starts,
        starts.tolist(),
        [tuple(slice(s, s + p) for s, p in zip(start, (3, 5), strict=True)) for start in starts.tolist()],
        np.asfortranarray(starts.astype(np.uint8)),
        cupy.asarray(starts),
        cupy.asarray(starts.astype(np.int32)),
        cupy.asarray(np.repeat(starts, 2, axis=0))[::2],
    ]
    found = [stepped(cupy.asarray(host), cupy.asarray(values), form) for form in forms]
    for each in found[1:]:
        assert_same_bits(each, found[0])


@pytest.mark.parametrize(
    ("shape", "patch", "count"), [((400,), (2,), 300), ((30, 20), (17, 18), 3), ((4, 4), (4, 4), 5)], ids=str
)
def test_windows_may_be_many_or_large_or_all_the_same(unfused, shape, patch, count):
    host, values, starts = drawn(shape, patch, count)
    indices = cupy.asarray(indices_of(shape, patch, starts))
    image, flat = cupy.asarray(host), cupy.asarray(host.reshape(-1))
    RMSprop(0.1).apply_gradients([(Windows(cupy.asarray(values), starts), image)])
    RMSprop(0.1).apply_gradients([(IndexedSlices(cupy.asarray(values.reshape(-1)), indices), flat)])
    assert_same_bits([image], [flat])


@pytest.mark.parametrize("values", [cupy.empty, np.empty], ids=["device", "host"])
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)], ids=str)
def test_no_windows_or_empty_ones_change_nothing(shape, values):
    image, opt = cupy.ones((5, 6)), RMSprop(0.1)
    starts = values((shape[0], 2), np.int64)
    starts[...] = 1
    opt.apply_gradients([(Windows(cupy.ones(shape), starts), image)])
    assert (image.get() == 1).all()
    assert opt.iterations == 1


def test_one_step_takes_windows_and_all_other_gradients():
    host, values, starts = drawn((9, 8), (3, 5), 7)
    images, dense = [cupy.asarray(host) for _ in range(3)], [cupy.ones(4, "f4") for _ in range(5)]
    rows = IndexedSlices(cupy.asarray(values[0]), cupy.asarray([3, 3, 0])), cupy.ones((4, 5), "f4")
    windows = Windows(cupy.asarray(values), starts)
    opt = RMSprop(0.1, **SETTINGS[1])
    for _ in range(2):
        opt.apply_gradients([*[(windows, image) for image in images], rows, *[(v.copy(), v) for v in dense]])
    expected, *_ = stepped(cupy.asarray(host), cupy.asarray(values), starts)
    assert_same_bits(images, [expected] * 3)
    assert (rows[1].get() < 1).any(1).tolist() == [True, False, False, True]
    assert all((v.get() < 1).all() for v in dense)


def test_values_in_the_memory_of_the_variable_are_those_before_the_step():
    host, _, starts = drawn((9, 8), (3, 8), 2)
    image, twin = cupy.asarray(host), cupy.asarray(host)
    opt, other = RMSprop(0.1), RMSprop(0.1)
    opt.apply_gradients([(Windows(image[:6].reshape(2, 3, 8), starts), image)])
    other.apply_gradients([(Windows(twin[:6].reshape(2, 3, 8).copy(), starts), twin)])
    assert_same_bits([image], [twin])


OUTSIDE = [[-1, 0], [1, 1], [0, 4], [-(2**63), 2**63 - 1], [1, 2]]


def test_windows_out_of_range_are_left_out_and_reported_once():
    values = cupy.asarray(np.arange(1.0, 31.0).reshape(5, 2, 3))
    image, twin, opt = cupy.ones((3, 6)), cupy.ones((3, 6)), RMSprop(0.1)
    opt.apply_gradients([(Windows(values, cupy.asarray(OUTSIDE)), image)])
    cupy.cuda.Device().synchronize()
    RMSprop(0.1).apply_gradients([(Windows(values[[1, 4]], [[1, 1], [1, 2]]), twin)])
    assert_same_bits([image], [twin])
    before = image.get().tobytes()
    good = Windows(values[:1], [[0, 0]])
    report = r"float64, shape \(3, 6\).*lie inside of \(3, 6\); an earlier step left out 3, from number 0 to 3"
    with pytest.raises(ValueError, match=report):
        opt.apply_gradients([(good, image)])
    assert image.get().tobytes() == before
    opt.apply_gradients([(good, image)])
    assert opt.iterations == 2


def test_rows_and_windows_that_were_left_out_are_reported_together():
    misses = Misses()
    misses.array[...] = cupy.asarray([2, -7, 9, 1, 4, 4])
    misses.record()
    cupy.cuda.Device().synchronize()
    with pytest.raises(
        ValueError, match=r"indices .* left out 2, from -7 to 9. windows .* left out 1, from number 4"
    ):
        misses.report((3, 6))
    misses.report((3, 6))


def test_with_validate_windows_out_of_range_are_refused():
    image, opt = cupy.ones((3, 6)), RMSprop(0.1, validate=True)
    for starts in (OUTSIDE, np.array(OUTSIDE), cupy.asarray(OUTSIDE)):
        with pytest.raises(ValueError, match=r"Gradient of variable 0 .*window 0 .*starts at \(-1, 0\)"):
            opt.apply_gradients([(Windows(cupy.ones((5, 2, 3)), starts), image)])
    assert (image.get() == 1).all()
    assert opt.iterations == 0


@pytest.mark.parametrize("lazy", [True, False])
def test_windows_that_are_not_finite_are_left_out_as_a_whole(lazy):
    host, values, starts = drawn((9, 8), (3, 5), 7)
    image, opt = cupy.asarray(host), RMSprop(0.1, nonfinite="skip", lazy=lazy)
    opt.apply_gradients([(Windows(cupy.asarray(values), starts), image)])
    before = [image.get(), *opt.get_weights()]
    values[-1, -1, -1] = np.nan
    opt.apply_gradients([(Windows(cupy.asarray(values), starts), image)])
    assert_same_bits([image, *opt.get_weights()], before)
    assert opt.skipped == 1


@pytest.mark.parametrize(
    ("settings", "launches"),
    [({}, 1), (SETTINGS[1], 1), ({"clipnorm": 1.0}, 3), ({"nonfinite": "skip"}, 3)],
    ids=str,
)
@pytest.mark.parametrize("place", [np.asarray, cupy.asarray], ids=["host", "device"])
def test_a_steady_step_is_one_launch_and_waits_for_nothing(gpusim, place, settings, launches):
    host, values, starts = drawn((9, 8), (3, 5), 7)
    image, opt = cupy.asarray(host), RMSprop(0.1, **settings)
    gradients = [Windows(cupy.asarray(values), place(starts[::order])) for order in (1, -1, 1, -1)]
    for gradient in gradients[1:]:
        opt.apply_gradients([(gradient, image)])
    gpusim.reset_counters()
    opt.apply_gradients([(gradients[0], image)])
    counted = gpusim.counters()
    is_brought = place is np.asarray
    assert counted["kernel_launches"] == launches
    assert counted["synchronisations"] == counted["memset"] == 0
    assert counted["memcpy_async_h2d"] <= is_brought + (launches > 1)
    assert counted["mallocs"] <= is_brought  # none, if memory comes from a pool


def test_a_step_costs_what_its_windows_do(gpusim):
    _, values, starts = drawn((9, 8), (3, 5), 7)
    counts = []
    for height in (9, 900):
        before = _accesses(gpusim)
        RMSprop(rho=0.5).apply_gradients([(Windows(cupy.asarray(values), starts), cupy.ones((height, 8), "f4"))])
        counts.append(_accesses(gpusim) - before)
    assert counts[0] == counts[1] > 0


def _accesses(gpusim):
    """Return how many elements the kernel of windows has loaded and stored so far."""
    cupy.cuda.Device().synchronize()
    found = gpusim.report("rmsprop_windows")
    return sum(sum(k.loaded.values()) + sum(k.stored.values()) for k in found)


def test_starts_may_be_changed_before_the_device_has_got_to_the_step():
    simulator = sys.modules.get("gpusim")
    host, values, starts = drawn((9, 8), (3, 5), 7)
    expected = stepped(cupy.asarray(host), cupy.asarray(values), starts)
    image, on_device, given = cupy.asarray(host), cupy.asarray(values), starts.copy()
    opt = RMSprop(0.1, **SETTINGS[1])
    cupy.cuda.Device().synchronize()
    gc.disable()  # a simulator runs Python inside of a kernel, where to free memory would be to wait for itself
    with simulator.deferred() if simulator else nullcontext(), cupy.cuda.Stream(non_blocking=True) as stream:
        for _ in range(2):
            given[...] = starts
            opt.apply_gradients([(Windows(on_device, given), image)])
            given[...] = 0
            cupyx.zeros_pinned(starts.shape, np.int64)  # where the copies could come from
        stream.synchronize()
    gc.enable()
    assert_same_bits([image, *opt.get_weights()], expected)
