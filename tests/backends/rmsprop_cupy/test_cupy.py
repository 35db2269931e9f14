"""CuPy arrays, on a device or in a simulator of one."""

import copy
import os
import pickle
import sys
from itertools import pairwise

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Windows, norms
from rmsprop.testing import BackendTests, hyper_of
from rmsprop.testing.backend_tests import OPTIONS, WINDOWED

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
rmsprop_cupy = pytest.importorskip("rmsprop_cupy")
from rmsprop_cupy import kernels, row_kernels, source  # noqa: E402
from rmsprop_cupy.kept import Kept  # noqa: E402
from rmsprop_cupy.norms import measured  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def errors_stay_in_their_test():
    yield
    cupy.cuda.Device().synchronize()


class TestCuPy(BackendTests):
    dtypes = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")

    @pytest.fixture
    def asarray(self):
        return cupy.asarray

    @pytest.mark.parametrize("settings", WINDOWED, ids=str)
    def test_windows_are_updated_like_the_same_elements_of_a_flat_variable_or_refused(
        self, unfused, asarray, dtype, settings
    ):  # for complex numbers, the compiler does not fuse the same operations in each kernel
        if "GPUSIM_FUZZ" in os.environ and dtype == "complex128" and "clipvalue" in settings:
            pytest.skip("the modulus takes approximate instructions, which err another way in each kernel here")
        test = super().test_windows_are_updated_like_the_same_elements_of_a_flat_variable_or_refused
        test(asarray, dtype, settings)


@pytest.fixture
def gpusim():
    """Return the simulator, which counts what a device does."""
    return sys.modules.get("gpusim") or pytest.skip("only a simulator counts launches")


def many(count, dtype=np.float32, seed=0):
    """Return arrays of mixed shapes, on the host."""
    rng = np.random.default_rng(seed)
    shapes = [(int(n),) if n % 3 else (int(n) // 3, 3) for n in rng.integers(0, 3000, count)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True, "global_clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.float16])
def test_a_list_is_updated_as_on_the_host(settings, dtype):
    starts = many(30, dtype)
    host, device = [s.copy() for s in starts], [cupy.asarray(s) for s in starts]
    one, two = RMSprop(0.01, **settings), RMSprop(0.01, **settings)
    for seed in (1, 2, 3):
        gradients = many(30, dtype, seed=0)
        gradients = [g * np.asarray(seed, dtype) for g in gradients]
        one.apply_gradients(zip(gradients, host, strict=True))
        two.apply_gradients(zip(map(cupy.asarray, gradients), device, strict=True))
    tolerance = 1e-3 if dtype == np.float16 else 1e-5
    for a, b in zip(host, device, strict=True):
        np.testing.assert_allclose(a, b.get(), rtol=tolerance, atol=tolerance)


def test_a_list_in_another_order_or_with_gaps_is_updated_rightly():
    starts = many(10)
    device = [cupy.asarray(s) for s in starts]
    host = [s.copy() for s in starts]
    one, two = RMSprop(0.01, momentum=0.5, clipnorm=1.0), RMSprop(0.01, momentum=0.5, clipnorm=1.0)
    for order in (range(10), range(9, -1, -1), range(1, 10, 2), range(10)):
        one.apply_gradients([(starts[i], host[i]) for i in order])
        two.apply_gradients([(cupy.asarray(starts[i]), device[i]) for i in order])
    for a, b in zip(host, device, strict=True):
        np.testing.assert_allclose(a, b.get(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True}, OPTIONS[2]], ids=str)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_a_steady_step_of_300_arrays_is_one_launch_and_waits_for_nothing(gpusim, settings, is_grouped):
    variables = [cupy.asarray(a) for a in many(300)]
    opt = RMSprop(**settings)
    opt.build(variables)
    if is_grouped:
        opt.group(variables[::3], lr_mult=0.5, wd_mult=0.0)
    for _ in range(2):
        opt.apply_gradients([(v.copy(), v) for v in variables])
    gradients = [cupy.ones_like(v) for v in variables]
    changes = {"bias_correction", "use_ema"} & settings.keys()
    of_groups = int(is_grouped and bool(changes))  # the numbers of groups, if these differ from step to step
    for copies in (1, 0):
        gpusim.reset_counters()
        opt.apply_gradients(zip(gradients, variables, strict=True))
        counted = gpusim.counters()
        assert counted["kernel_launches"] == 1
        assert counted["synchronisations"] == counted["mallocs"] == 0
        assert counted["memcpy_async_h2d"] <= copies + of_groups


@pytest.mark.parametrize("dtypes", [[np.float32], [np.float32, np.complex64]], ids=str)
def test_a_steady_step_with_clipping_is_at_most_3_launches_for_each_dtype(gpusim, dtypes):
    variables = [cupy.asarray(a) for dtype in dtypes for a in many(300 // len(dtypes), dtype)]
    opt = RMSprop(global_clipnorm=1.0)
    for _ in range(2):
        gradients = [cupy.ones_like(v) for v in variables]
        opt.apply_gradients(zip(gradients, variables, strict=True))
    for copies, given in [(0, gradients), (1, [2 * g for g in gradients])]:
        gpusim.reset_counters()
        opt.apply_gradients(zip(given, variables, strict=True))
        counted = gpusim.counters()
        assert counted["kernel_launches"] <= 3 * len(dtypes)
        assert counted["synchronisations"] == counted["mallocs"] == 0
        assert counted["memcpy_async_h2d"] == copies


@pytest.mark.parametrize("settings", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipnorm": 0.0}], ids=str)
@pytest.mark.parametrize("value", [1.0, np.inf, np.nan, 0.0])
def test_clipping_factors_are_those_of_the_shared_rules(settings, value):
    host = [np.full(3, value), np.ones(5000, np.float32), np.ones((), np.float16), np.ones(0)]
    squares = np.array([float((g.astype(float) ** 2).sum()) for g in host])
    hyper = hyper_of(RMSprop(**settings))
    (expected,) = norms.clippings([norms.Measure(lambda scale: squares * scale * scale)], hyper)
    gradients = [cupy.asarray(g) for g in host]
    factors = measured(Kept(len(gradients)), gradients, hyper).factors
    given = factors["float64"].get().reshape(-1, 2).prod(axis=1)
    np.testing.assert_allclose(given, expected.factors.prod(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(factors["float32"].get(), factors["float64"].get().astype(np.float32))
    np.testing.assert_allclose(rmsprop_cupy.backend.squared_norms(gradients, hyper).get(), squares, rtol=1e-12)


def test_the_demonstration_converges_as_on_the_host(tmp_path, example):
    settings = ["--small", "--epochs", "2", "--output", str(tmp_path)]
    host, device = (example("ptychography").main([*settings, "--backend", name]) for name in ("numpy", "cupy"))
    assert device.loss == pytest.approx(host.loss, rel=1e-4)


def test_state_moves_between_host_and_device():
    w, v = np.ones((3, 4), np.float32), cupy.ones((3, 4), cupy.float32)
    host, device = RMSprop(momentum=0.5), RMSprop(momentum=0.5)
    host.apply_gradients([(w, w)])
    device.build([v])
    device.set_weights(host.get_weights())
    v[...] = cupy.asarray(w)
    assert isinstance(device.get_slot(v, "rms").array, cupy.ndarray)
    host.apply_gradients([(w, w)])
    device.apply_gradients([(v, v)])
    np.testing.assert_allclose(v.get(), w, rtol=1e-6)
    for a, b in zip(host.get_weights(), device.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    host.set_weights([cupy.asarray(a) for a in device.get_weights()])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alike(copied):
    variables = [cupy.asarray(a) for a in many(10)]
    opt = RMSprop(0.1, momentum=0.9)
    opt.apply_gradients([(v.copy(), v) for v in variables])
    others, twin = copied((variables, opt))
    for optimizer, arrays in ((opt, variables), (twin, others)):
        optimizer.apply_gradients([(a.copy(), a) for a in arrays])
    for a, b in zip(variables, others, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


def test_views_are_recognised_and_overlap_is_refused():
    w = cupy.ones((3, 2))
    opt = RMSprop()
    for _ in range(2):
        opt.apply_gradients([(cupy.ones(2), w[0])])
    assert len(opt.weights) == 2
    with pytest.raises(ValueError, match="share memory"):
        opt.apply_gradients([(cupy.ones((3, 2)), w)])
    RMSprop().apply_gradients([(cupy.ones(3), w[:, 0]), (cupy.ones(3), w[:, 1])])


def test_bad_gradients_change_nothing():
    good, bad = cupy.ones(3), cupy.ones(3)
    opt = RMSprop()
    opt.apply_gradients([(cupy.ones(3), good), (cupy.ones(3), bad)])
    before = [a.get().tobytes() for a in (good, bad)] + [w.tobytes() for w in opt.get_weights()]
    for gradient, error in [(cupy.ones(4), ValueError), (np.ones(3), TypeError), (cupy.ones(3, int), TypeError)]:
        with pytest.raises(error, match="Gradient of variable 1"):
            opt.apply_gradients([(cupy.ones(3), good), (gradient, bad)])
    assert [a.get().tobytes() for a in (good, bad)] + [w.tobytes() for w in opt.get_weights()] == before


LAYOUTS = {
    "fortran": cupy.asfortranarray,
    "reversed": lambda a: a[::-1],
    "with gaps": lambda a: a.repeat(2, 2)[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_numbers(layout):
    start = cupy.asarray(np.random.default_rng(0).standard_normal((6, 4, 5)).astype(np.float32))
    variables = start.copy(), LAYOUTS[layout](start.copy())
    variables[1][...] = start
    for v in variables:
        gradient = cupy.empty_like(v)
        gradient[...] = start
        opt = RMSprop(0.1, momentum=0.5, centered=True, global_clipnorm=3.0)
        opt.apply_gradients([(gradient, v)])
        opt.apply_gradients([(IndexedSlices(gradient[:3], cupy.asarray([5, 0, 5])), v)])
    np.testing.assert_array_equal(variables[0].get(), variables[1].get())


def test_a_gradient_in_the_memory_of_a_variable_counts_as_it_was_before_the_step():
    x, y = cupy.asarray([1.0, 2.0]), cupy.asarray([3.0, 4.0])
    a, b = x.copy(), y.copy()
    RMSprop(0.1, epsilon=1.0).apply_gradients([(y, x), (x, y)])
    RMSprop(0.1, epsilon=1.0).apply_gradients([(b.copy(), a), (a.copy(), b)])
    np.testing.assert_array_equal(x.get(), a.get())
    np.testing.assert_array_equal(y.get(), b.get())


@pytest.mark.parametrize("view", [lambda a: a[::-1], cupy.from_dlpack, lambda a: a.reshape(2, 3).T.reshape(-1)])
@pytest.mark.parametrize("count", [1, 5])
def test_a_gradient_in_the_memory_of_a_slot_counts_as_it_was_before_the_step(view, count):
    variables = [cupy.arange(1.0, 7.0) for _ in range(count)]
    twins = [v.copy() for v in variables]
    one, two = RMSprop(0.1), RMSprop(0.1)
    for optimizer, arrays in ((one, variables), (two, twins)):
        optimizer.apply_gradients([(cupy.arange(6.0), a) for a in arrays])
    gradients = [view(one.get_slot(v, "rms").array) for v in variables]
    two.apply_gradients([(g.copy(), t) for g, t in zip(gradients, twins, strict=True)])
    one.apply_gradients(zip(gradients, variables, strict=True))
    for a, b in zip(variables, twins, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize("settings", [{}, {"clipnorm": 1.0}], ids=str)
def test_empty_arrays_are_variables_of_their_own(count, settings):
    variables = [*[cupy.ones((0, 3)) for _ in range(count)], cupy.ones(2)]
    opt = RMSprop(0.1, **settings)
    for _ in range(2):
        opt.apply_gradients([(cupy.ones_like(v), v) for v in variables])
    assert len(opt.weights) == 1 + len(variables)
    assert (variables[-1].get() < 1).all()


def test_empty_views_are_recognised():
    opt, w, empty = RMSprop(0.1), cupy.ones((3, 2)), cupy.ones(0)
    for _ in range(3):
        opt.apply_gradients([(cupy.ones((0, 2)), w[:0]), (cupy.ones((0, 2)), w[2:2]), (cupy.ones(0), empty[:])])
    assert len(opt.weights) == 1 + 3


def test_plans_of_lists_in_ever_another_order_do_not_add_up():
    variables = [cupy.ones(2) for _ in range(1_000)]
    opt, rng = RMSprop(0.1), np.random.default_rng(0)
    opt.build(variables)
    for _ in range(12):
        opt.apply_gradients([(variables[i] * 0, variables[i]) for i in rng.permutation(len(variables))])
    (kept,) = {id(p.plans): p.plans for p in opt._state.parameters}.values()
    assert len(kept) == 4


def test_lists_in_turn_are_planned_once(gpusim):
    variables, gradients = [[cupy.ones(n) for n in range(9)] for _ in range(2)]
    lists = [list(zip(gradients, variables, strict=True)), list(zip(gradients, variables, strict=True))[:6]]
    opt = RMSprop(0.1, clipnorm=1.0)
    for _ in range(2):
        for pairs in lists:
            opt.apply_gradients(pairs)
    gpusim.reset_counters()
    for pairs in lists:
        opt.apply_gradients(pairs)
    counted = gpusim.counters()
    assert counted["mallocs"] == counted["memcpy_async_h2d"] == counted["synchronisations"] == 0


UNCOMPILED = {
    "dense": lambda: (cupy.ones(3), cupy.ones(3)),
    "strided": lambda: (cupy.ones((2, 6))[:, ::2], cupy.ones((2, 6))[:, ::2]),
    "sparse": lambda: (IndexedSlices(cupy.ones((1, 3)), cupy.asarray([1])), cupy.ones((2, 3))),
}


@pytest.mark.parametrize("case", UNCOMPILED)
@pytest.mark.parametrize("count", [1, 5])
def test_a_kernel_that_does_not_compile_leaves_no_half_of_a_step(monkeypatch, case, count):
    known = [(cupy.ones(n, cupy.float32), cupy.ones(n, cupy.float32)) for n in range(count)]
    pairs = [*known, UNCOMPILED[case]()]
    opt = RMSprop(0.1, lazy=False)
    opt.build([v for _, v in pairs])
    formula = source.formula
    with monkeypatch.context() as patch:
        patch.setattr(
            source, "formula", lambda variant: "not C++" if variant.dtype == "float64" else formula(variant)
        )
        for kernel in (kernels.array_kernel, row_kernels.compiled):
            kernel.cache_clear()
        with pytest.raises(Exception, match="error"):
            opt.apply_gradients(pairs)
    assert all((v == 1).all() for _, v in pairs)
    assert not any(w.any() for w in opt.get_weights())
    for kernel in (kernels.array_kernel, row_kernels.compiled):
        kernel.cache_clear()
    opt.apply_gradients(pairs)
    assert all((v < 1).any() for _, v in pairs if v.size)


class Scarce:
    """An allocator of CuPy that has no more memory after some requests."""

    def __init__(self, requests):
        self.requests = requests

    def __call__(self, size):
        if self.requests == 0:
            raise cupy.cuda.memory.OutOfMemoryError(size, 0)
        self.requests -= 1
        return cupy.get_default_memory_pool().malloc(size)


def failures_until_done(opt, pairs):
    """Take a step with ever more memory, until it is enough; return how often it was not, and nothing changed."""
    failures = 0
    while True:
        try:
            with cupy.cuda.using_allocator(Scarce(failures)):
                opt.apply_gradients(pairs)
            return failures
        except cupy.cuda.memory.OutOfMemoryError:
            failures += 1
            assert all((v == 1).all() for _, v in pairs)
            assert opt.iterations == 0
            assert not any(w.any() for w in opt.get_weights()[1:])


@pytest.mark.parametrize("length", [2, 6])
@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "clipnorm": 1.0}], ids=str)
def test_a_step_without_enough_memory_changes_nothing(length, settings):
    variables = [cupy.ones((4, 3), cupy.float32) for _ in range(length)]
    table, rows = cupy.ones((4, 3)), IndexedSlices(cupy.ones((2, 3)), cupy.asarray([3, 0]))
    strided = cupy.asfortranarray(variables[0])
    aliases = list(pairwise(variables))
    pairs = [(strided, variables[0]), *aliases, (rows, table)]
    assert failures_until_done(RMSprop(0.1, **settings), pairs) > len(pairs)
    assert all((v.get() < 1).all() for v in variables)


def test_arrays_of_the_host_stay_as_they_are_if_the_device_lacks_memory():
    host, variables = np.ones(3), [cupy.ones(3) for _ in range(5)]
    pairs = [(np.ones(3), host), *[(cupy.ones(3), v) for v in variables]]
    assert failures_until_done(RMSprop(0.1), pairs) > len(variables)
    assert all((v < 1).all() for v in (host, *variables))


def test_minimize_takes_the_gradients_of_the_loss():
    v = cupy.ones(3)
    RMSprop(0.1).minimize(lambda v: (float((v * v).sum()), [2 * v]), [v])
    assert (v.get() < 1).all()
    with pytest.raises(TypeError, match="cupy"):
        RMSprop().minimize(lambda v: (v * v).sum(), [v])


def test_the_memory_traffic_is_the_least_there_can_be(gpusim):
    for settings, accesses in [({}, 5), ({"momentum": 0.9}, 7), ({"momentum": 0.9, "centered": True}, 9)]:
        v = cupy.ones(2048, cupy.float32)
        RMSprop(**settings).apply_gradients([(cupy.ones(2048, cupy.float32), v)])
        counts = {
            sum(k.loads.values()) + sum(k.stores.values())
            for k in gpusim.report("rmsprop")
            if k.name == "rmsprop" and not k.f64 and not k.approx and k.launches
        }
        assert accesses in counts


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"global_clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_a_step_is_within_4_ulp_of_that_on_the_host(settings, dtype):
    rng = np.random.default_rng(0)
    host = rng.standard_normal(3000).astype(dtype)
    device = cupy.asarray(host)
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    two.build([device])
    momentum = np.zeros_like(host)
    for _ in range(4):
        gradient, before = rng.standard_normal(3000).astype(dtype), host.copy()
        one.apply_gradients([(gradient, host)])
        two.apply_gradients([(cupy.asarray(gradient), device)])
        size = np.maximum(np.abs(host), np.abs(host - before))
        if "momentum" in settings:  # the two parts of a step may cancel
            size = np.maximum(size, np.abs(momentum))
            momentum = one.get_slot(host, "momentum").numpy()
        assert (np.abs(device.get() - host) <= 4 * np.spacing(size)).all()
        two.set_weights(one.get_weights())
        device[...] = cupy.asarray(host)


@pytest.fixture
def unfused(monkeypatch):
    """Let multiplications and additions be rounded each, and keep subnormal numbers, as on the host."""
    monkeypatch.setattr(kernels, "OPTIONS", ("-fmad=false", "-ftz=false"))


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True}, {"clipvalue": 0.5}], ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("count", [1, 6])
def test_without_fused_operations_the_bits_are_those_of_the_host(unfused, settings, dtype, count):
    if "clipvalue" in settings and np.dtype(dtype).kind == "c":
        pytest.skip("the moduli of complex numbers come from different hypot functions")
    rng = np.random.default_rng(0)
    sizes = [int(n) for n in rng.integers(1, 3000, count)]
    host = [rng.standard_normal(n).astype(dtype) for n in sizes]
    device = [cupy.asarray(h) for h in host]
    one, two = RMSprop(0.01, **settings), RMSprop(0.01, **settings)
    for _ in range(5):
        gradients = [rng.standard_normal(n).astype(dtype) for n in sizes]
        one.apply_gradients(zip(gradients, host, strict=True))
        two.apply_gradients(zip(map(cupy.asarray, gradients), device, strict=True))
    for a, b in zip(host + one.get_weights(), [d.get() for d in device] + two.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_rows_out_of_range_are_left_out_and_reported_once():
    table, other = cupy.ones((3, 2)), cupy.ones((3, 2))
    gradient = IndexedSlices(cupy.ones((5, 2)), cupy.asarray([-7, 1, 3, 1, 2**40]))
    opt = RMSprop(0.1)
    opt.apply_gradients([(gradient, table), (cupy.ones((3, 2)), other)])
    cupy.cuda.Device().synchronize()
    assert (table.get() < 1).all(1).tolist() == [False, True, False]
    before = table.get().tobytes(), other.get().tobytes()
    report = r"float64, shape \(3, 2\).*>= 0 and < 3; an earlier step left out 3, from -7 to 1099511627776"
    good = IndexedSlices(cupy.ones((1, 2)), cupy.asarray([0]))
    with pytest.raises(ValueError, match=report):
        opt.apply_gradients([(good, table), (cupy.ones((3, 2)), other)])
    assert (table.get().tobytes(), other.get().tobytes()) == before
    opt.apply_gradients([(gradient, table)])
    with pytest.raises(ValueError, match=report):
        opt.get_weights()
    assert opt.iterations == opt.get_weights()[0] == 2


def test_rows_beyond_int64_are_reported_as_such():
    gradient = IndexedSlices(cupy.ones((2, 2)), cupy.asarray([1, 2**64 - 1], np.uint64))
    opt = RMSprop(0.1)
    opt.apply_gradients([(gradient, cupy.ones((3, 2)))])
    cupy.cuda.Device().synchronize()
    with pytest.raises(ValueError, match=f"left out 1, from {2**63 - 1}"):
        opt.get_weights()


def test_a_sparse_step_touches_listed_rows_only(gpusim):
    gradient = IndexedSlices(cupy.ones((4, 4), cupy.float32), cupy.asarray([5, 3, 1, 0]))
    counts = []
    for height in (10, 1000):
        before = _accesses(gpusim)
        RMSprop(rho=0.5).apply_gradients([(gradient, cupy.ones((height, 4), cupy.float32))])
        counts.append(_accesses(gpusim) - before)
    assert counts[0] == counts[1] > 0


def _accesses(gpusim):
    """Return how many elements the kernel of sparse gradients has loaded and stored so far."""
    cupy.cuda.Device().synchronize()
    kernels = gpusim.report("rmsprop_rows")
    return sum(sum(k.loaded.values()) + sum(k.stored.values()) for k in kernels)


def test_kernels_use_no_atomics_but_those_that_count_or_mark(gpusim):
    for momentum in (0.0, 0.9):
        table = cupy.ones((6, 3), cupy.float32)
        gradient = IndexedSlices(cupy.ones((4, 3), cupy.float32), cupy.asarray([5, 5, 5, 0]))
        opt = RMSprop(momentum=momentum, global_clipnorm=1.0)
        windows = Windows(cupy.ones((2, 2, 3), cupy.float32), [(1, 0), (2, 0)])
        for each in (gradient, windows, table):
            opt.apply_gradients([(each, table)])
    counting = "rmsprop_sort_count", "rmsprop_windows", "rmsprop_factor"
    for kernel in gpusim.report():
        if kernel.name.startswith("rmsprop"):
            assert kernel.atomics == 0 or kernel.name in counting, kernel


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
@pytest.mark.parametrize(
    "settings",
    [{"clipvalue": 1e-42}, {"clipvalue": 1e300}, {"clipnorm": 1e-42}, {"learning_rate": 1e-42}],
    ids=str,
)
def test_numbers_that_single_precision_cannot_hold_raise_nothing(dtype, settings):
    with np.errstate(all="raise"):
        for shapes in ([4], [4, (2, 3)]):
            variables, opt = [cupy.ones(shape, dtype) for shape in shapes], RMSprop(**settings)
            for _ in range(2):
                opt.apply_gradients([(cupy.ones(v.shape, dtype), v) for v in variables])
            assert opt.iterations == 2
