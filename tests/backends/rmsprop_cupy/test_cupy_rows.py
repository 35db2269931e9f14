"""Sparse gradients on CuPy arrays: sorted together, without a wait, with the bits of the CPU."""

import gc
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop
from rmsprop.arrays.rows import MANY

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
rmsprop_cupy = pytest.importorskip("rmsprop_cupy")
from rmsprop_cupy import kernels, sorting  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


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


def drawn(rng, shape, dtype):
    real = rng.standard_normal(shape)
    return np.asarray(real + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else real).astype(
        dtype
    )


class Pair:
    """Variables on the host and on the device, and an optimizer of each."""

    def __init__(self, shapes, dtypes, layout=cupy.asarray, **settings):
        self.rng = np.random.default_rng(0)
        self.host = [drawn(self.rng, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        self.device = [layout(cupy.asarray(v)) for v in self.host]
        self.one, self.two = RMSprop(0.01, **settings), RMSprop(0.01, **settings)

    def step(self, *listed):
        """Step with gradients of random values for these rows."""
        values = [
            drawn(self.rng, (len(rows), *v.shape[1:]), v.dtype) for rows, v in zip(listed, self.host, strict=True)
        ]
        here = [IndexedSlices(x, np.asarray(rows)) for x, rows in zip(values, listed, strict=True)]
        there = [IndexedSlices(cupy.asarray(g.values), cupy.asarray(g.indices)) for g in here]
        self.one.apply_gradients(zip(here, self.host, strict=True))
        self.two.apply_gradients(zip(there, self.device, strict=True))

    def assert_same_bits(self):
        for a, b in zip(self.host, self.device, strict=True):
            assert a.tobytes() == b.get().tobytes()
        for a, b in zip(self.one.get_weights(), self.two.get_weights(), strict=True):
            assert a.tobytes() == b.tobytes()


SETTINGS = [
    {},
    {"momentum": 0.9, "centered": True},
    {"lazy": False, "weight_decay": 0.1, "decoupled": True},
    {"use_ema": True, "nonfinite": "skip"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
def test_a_list_of_sparse_gradients_gives_the_bits_of_the_host(unfused, settings, dtype):
    pair = Pair([(9, 3), (300, 2), (5,), (2, 2, 3)], [dtype, np.float32, dtype, np.float64], **settings)
    for step in range(3):
        rng = np.random.default_rng(step)
        counts = 40, 2_100, MANY + 1, 1 + step
        pair.step(*[rng.integers(0, len(v), n) for v, n in zip(pair.host, counts, strict=True)])
    pair.assert_same_bits()


COUNTS = [1, 2, MANY - 1, MANY, MANY + 1, 2 * MANY - 1, 2 * MANY, 2 * MANY + 1, 10_000]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("before", [0, 1, 77])
def test_a_row_that_is_listed_often_gives_the_bits_of_the_host(unfused, count, before):
    pair = Pair([(4, 2)], [np.float32])
    for _ in range(2):
        rows = np.array([0] * before + [2] * count + [3] * before)
        pair.rng.shuffle(rows)
        pair.step(rows)
    pair.assert_same_bits()


def test_rows_that_are_all_listed_often_give_the_bits_of_the_host(unfused):
    pair = Pair([(3, 2), (4, 1), (70_000,)], [np.complex64, np.complex64, np.complex64], clipvalue=1e9)
    for _ in range(2):
        few, often = np.repeat([1, 0, 2], [MANY + 1, 3 * MANY, MANY])[::-1], np.arange(4 * (MANY + 1))
        pair.step(few, often % 4, np.array([257, 2, 65_536])[often % 3])
    pair.assert_same_bits()


@pytest.mark.parametrize("name", sorting.KINDS)
@pytest.mark.parametrize("layout", [lambda i: i, lambda i: i[::-1].copy()[::-1], lambda i: i.repeat(3)[::3]])
def test_indices_may_be_any_integers_and_lie_in_memory_in_any_way(unfused, name, layout):
    pair = Pair([(100, 2)], [np.float32])
    rows = pair.rng.integers(0, 100, 300).astype(name)
    values = drawn(pair.rng, (300, 2), np.float32)
    pair.one.apply_gradients([(IndexedSlices(values, rows), pair.host[0])])
    pair.two.apply_gradients([(IndexedSlices(cupy.asarray(values), layout(cupy.asarray(rows))), pair.device[0])])
    pair.assert_same_bits()


@pytest.mark.parametrize("height", [1, 2, 255, 256, 257, 65_535, 65_536, 70_000])
def test_tables_of_any_height_are_sorted_by_all_of_their_bits(unfused, height):
    pair = Pair([(height,)], [np.float32])
    for _ in range(2):
        pair.step(np.append(pair.rng.integers(0, height, 500), [height - 1, 0]))
    pair.assert_same_bits()


@pytest.mark.parametrize(
    "layout", [cupy.asfortranarray, lambda a: a[::-1].copy()[::-1], lambda a: a.repeat(2, 1)[:, ::2]]
)
def test_tables_of_any_layout_give_the_bits_of_the_host(unfused, layout):
    pair = Pair([(6, 3), (9, 2)], [np.float32, np.float64], layout, momentum=0.9, clipnorm=1.0)
    for _ in range(2):
        pair.step(pair.rng.integers(0, 6, 5 * MANY), pair.rng.integers(0, 9, 20))
    pair.assert_same_bits()


def test_groups_of_variables_have_their_own_numbers(unfused):
    pair = Pair([(9, 3), (300, 2), (5, 2)], [np.float32] * 3, momentum=0.5)
    for opt, variables in ((pair.one, pair.host), (pair.two, pair.device)):
        opt.build(variables)
        opt.group(variables[1:2], lr_mult=0.5)
    for _ in range(2):
        pair.step(*[pair.rng.integers(0, len(v), 20) for v in pair.host])
    pair.assert_same_bits()


def test_a_negative_zero_keeps_its_sign_as_on_the_host(unfused):
    pair = Pair([(3, 1)], [np.float32])
    rows, values = np.array([1, 2, 1]), np.full((3, 1), -0.0, np.float32)
    pair.host[0][...] = -0.0  # which less 0.0 keeps its sign, but not less -0.0
    pair.device[0] = cupy.asarray(pair.host[0])
    pair.one.apply_gradients([(IndexedSlices(values, rows), pair.host[0])])
    pair.two.apply_gradients([(IndexedSlices(cupy.asarray(values), cupy.asarray(rows)), pair.device[0])])
    pair.assert_same_bits()


def listed(count, seed, height=1_000, length=50):
    """Return tables and sparse gradients for them."""
    rng = np.random.default_rng(seed)
    tables = [cupy.ones((height, 4), np.float32) for _ in range(count)]
    rows = [cupy.asarray(rng.integers(0, height, length)) for _ in range(count)]
    return tables, [IndexedSlices(cupy.ones((length, 4), np.float32), r) for r in rows]


@pytest.mark.parametrize(
    ("settings", "more"), [({}, 0), ({"clipnorm": 1.0}, 2), ({"nonfinite": "skip"}, 2)], ids=str
)
@pytest.mark.parametrize("length", [50, 3 * MANY])
def test_a_steady_step_has_as_many_launches_for_many_as_for_one_and_waits_for_nothing(
    gpusim, settings, more, length
):
    found = []
    for count in (1, 6, 40):
        tables, gradients = listed(count, 0, length=length)
        _, others = listed(count, 1, length=length - (not settings))  # norms are planned for sizes
        opt = RMSprop(**settings)
        for given in (gradients, others, gradients):
            opt.apply_gradients(zip(given, tables, strict=True))
        cupy.cuda.Device().synchronize()
        gpusim.reset_counters()
        opt.apply_gradients(zip(others, tables, strict=True))
        counted = gpusim.counters()
        assert not any(counted[name] for name in ("synchronisations", "mallocs", "host_mallocs", "memset_async"))
        assert counted["memcpy_async_h2d"] <= 1 + bool(settings)
        found.append(counted["kernel_launches"])
    assert found == [2 * sorting.passes((1_000).bit_length()) + 1 + more + (length > MANY)] * 3


def test_no_thread_adds_up_a_row_alone(gpusim):
    table, rows = cupy.ones((4, 2), np.float32), cupy.zeros(10_000, np.int32)
    opt, gradient = RMSprop(), IndexedSlices(cupy.ones((10_000, 2), np.float32), rows)
    before = loaded(gpusim)
    opt.apply_gradients([(gradient, table)])
    cupy.cuda.Device().synchronize()
    # Two threads add 78 sums and the rest; all others only find out that theirs is not the first of its row.
    assert loaded(gpusim) - before < 10_000


def loaded(gpusim):
    """Return how many numbers of four bytes the kernels that update rows have read so far."""
    return sum(kernel.loaded.get(4, 0) for kernel in gpusim.report("rmsprop_rows"))


def test_a_step_in_another_stream_is_sorted_there():
    gpusim = sys.modules.get("gpusim")
    tables, gradients = listed(5, 0)
    twins, others = listed(5, 0)
    one, two = RMSprop(0.01), RMSprop(0.01)
    for _ in range(2):
        one.apply_gradients(zip(gradients, tables, strict=True))
        two.apply_gradients(zip(others, twins, strict=True))
    cupy.cuda.Device().synchronize()
    gc.disable()  # a simulator runs Python inside of a kernel, where to free memory would be to wait for itself
    with gpusim.deferred() if gpusim else nullcontext(), cupy.cuda.Stream(non_blocking=True) as stream:
        for gradient in gradients:  # which this stream alone has
            gradient.values[...] = 3
            gradient.indices[::2] = 7
        for _ in range(3):
            one.apply_gradients(zip(gradients, tables, strict=True))
        stream.synchronize()
        found = [table.get().tobytes() for table in tables]
    gc.enable()
    for gradient in others:
        gradient.values[...] = 3
        gradient.indices[::2] = 7
    for _ in range(3):
        two.apply_gradients(zip(others, twins, strict=True))
    assert found == [twin.get().tobytes() for twin in twins]
