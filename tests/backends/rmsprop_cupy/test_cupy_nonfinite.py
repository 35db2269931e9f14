"""Steps on a GPU with gradients that are not finite: left out there, without anybody waiting."""

import copy
import gc
import pickle
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable, schedules

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def gpusim():
    return sys.modules.get("gpusim") or pytest.skip("only in the simulator")


@pytest.fixture
def stream():
    """Return the current stream, which in a simulator puts its work off until something waits for it."""
    simulator = sys.modules.get("gpusim")
    gc.disable()  # a simulator runs Python inside of a kernel, where to free memory would be to wait for itself
    with simulator.deferred() if simulator else nullcontext(), cupy.cuda.Stream(non_blocking=True) as stream:
        yield stream
        stream.synchronize()
    gc.enable()


def drawn(variables, step):
    """Return gradients for a step; every second one has an infinity in its last array."""
    rng = np.random.default_rng(step)
    gradients = [rng.standard_normal(v.shape).astype(v.dtype) for v in variables]
    if step % 2:
        gradients[-1][(-1,) * gradients[-1].ndim] = [np.inf, np.nan][step // 2 % 2]
    return gradients


SETTINGS = [
    {},
    {"clipvalue": 0.5},
    {"clipnorm": 0.5, "momentum": 0.9},
    {"clipvalue": 0.5, "global_clipnorm": 0.5, "centered": True},
    {"learning_rate": schedules.ExponentialDecay(0.1, 1, 0.5)},
    {"decay": 1.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("count", [1, 5])
def test_the_same_steps_are_left_out_as_on_the_host(stream, settings, count):
    hosts = [np.ones((k + 2, 3), np.float32) for k in range(count)]
    variables = [cupy.asarray(h) for h in hosts]
    here, there = (RMSprop(**{"learning_rate": 0.1, **settings}, nonfinite="skip") for _ in range(2))
    for step in range(6):
        gradients = drawn(hosts, step)
        here.apply_gradients(list(zip(gradients, hosts, strict=True)))
        there.apply_gradients([(cupy.asarray(g), v) for g, v in zip(gradients, variables, strict=True)])
    assert (there.skipped, int(there.iterations)) == (3, 3)
    for h, v in zip([*hosts, *here.get_weights()], [*variables, *there.get_weights()], strict=True):
        np.testing.assert_allclose(cupy.asnumpy(v), h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "complex128"])
def test_nothing_of_any_dtype_or_layout_is_touched(dtype):
    def variables():
        return [cupy.ones(5, dtype), cupy.ones((4, 6), dtype)[::2, ::-3], cupy.ones((), dtype)]

    values = variables()
    opt = RMSprop(0.1, momentum=0.5, centered=True, nonfinite="skip")
    opt.apply_gradients([(v.copy(), v) for v in values])
    before = [v.get() for v in values] + opt.get_weights()
    for k in range(3):
        gradients = variables()
        gradients[k][(-1,) * gradients[k].ndim] = np.nan if dtype[0] == "f" else complex(0, np.inf)
        opt.apply_gradients(list(zip(gradients, values, strict=True)))
    for a, b in zip([v.get() for v in values] + opt.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert opt.skipped == 3


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("settings", [{}, {"clipnorm": 1.0, "centered": True}, {"momentum": 0.9}], ids=str)
def test_rows_and_the_decay_of_all_others_are_left_out(stream, lazy, settings):
    host, good = np.ones((6, 2), np.float32), np.ones(3, np.float32)
    table, other = cupy.asarray(host), cupy.asarray(good)
    here, there = (RMSprop(0.1, lazy=lazy, nonfinite="skip", **settings) for _ in range(2))
    for step in range(4):
        (values,) = drawn([np.ones((3, 2), np.float32)], step)
        here.apply_gradients([(IndexedSlices(values, np.array([5, 0, 5])), host), (good, good)])
        rows = IndexedSlices(cupy.asarray(values), cupy.array([5, 0, 5]))
        there.apply_gradients([(rows, table), (other, other)])
    for a, b in zip([table.get(), *there.get_weights()], [host, *here.get_weights()], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert (there.iterations, there.skipped) == (2, 2)


def test_a_step_waits_for_nothing_and_takes_two_launches_more(gpusim):
    variables = [cupy.ones(7, np.float32) for _ in range(5)]
    gradients = [cupy.ones(7, np.float32) for _ in range(5)]
    launches = []
    for nonfinite in ("propagate", "skip"):
        opt = RMSprop(nonfinite=nonfinite)
        for step in range(4):
            if step == 3:
                gpusim.reset_counters()
            opt.apply_gradients(list(zip(gradients, variables, strict=True)))
        counted = gpusim.counters()
        assert counted["synchronisations"] == counted["mallocs"] == counted["memcpy_async_h2d"] == 0
        launches.append(counted["kernel_launches"])
    assert launches == [1, 3]


def test_whoever_reads_the_count_waits_until_it_is_right(stream):
    x = cupy.ones(3)
    good, bad = cupy.ones(3), cupy.array([1, np.nan, 1])
    opt = RMSprop(nonfinite="skip")
    opt.build([x])
    kept = opt.iterations
    returned = [opt.apply_gradients([(g, x)]) for g in (good, bad, bad, good)]
    assert int(returned[0]) == kept == opt.iterations == opt.weights[0] == 2
    opt.apply_gradients([(bad, x)])
    assert opt.get_weights()[0] == 2
    opt.apply_gradients([(bad, x)])
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert (twin.iterations, twin.skipped) == (2, 4)
    opt.apply_gradients([(bad, x)])
    opt.iterations.assign(10)
    opt.apply_gradients([(good, x)])
    assert (opt.iterations, opt.skipped) == (11, 5)


@pytest.mark.parametrize("settings", SETTINGS[2:], ids=str)
def test_replays_of_a_graph_are_left_out_one_by_one(settings):
    host = [np.ones(k + 2, np.float32) for k in range(5)]
    variables, gradients = ([cupy.asarray(h) for h in host] for _ in range(2))
    here, there = (RMSprop(**{"learning_rate": 0.1, **settings}, nonfinite="skip") for _ in range(2))
    there.build(variables)
    cupy.cuda.Device().synchronize()
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        there.apply_gradients(list(zip(gradients, variables, strict=True)))
        graph = stream.end_capture()
    with stream:
        for step in range(6):
            for g, values in zip(gradients, drawn(host, step), strict=True):
                g.set(values)
            here.apply_gradients(list(zip(drawn(host, step), host, strict=True)))
            there.advance()
            graph.launch()
        assert (there.skipped, int(there.iterations)) == (3, 3)
        there.apply_gradients(list(zip(gradients, variables, strict=True)))  # of step 5, not in the graph
        assert (there.skipped, int(there.iterations)) == (4, 3)
        stream.synchronize()
    for h, v in zip(host, variables, strict=True):
        np.testing.assert_allclose(v.get(), h, rtol=1e-5, atol=1e-6)


def test_what_a_graph_has_captured_of_the_setting_stays():
    x, stream = cupy.ones(2), cupy.cuda.Stream(non_blocking=True)
    opt = RMSprop(nonfinite="raise")
    opt.build([x])
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="nonfinite='raise'"):
            opt.apply_gradients([(x.copy(), x)])
        stream.end_capture()
        gradient = x.copy()
        opt.nonfinite = "skip"
        stream.begin_capture()
        opt.apply_gradients([(gradient, x)])
        stream.end_capture()
    opt.nonfinite = "propagate"
    with pytest.raises(RuntimeError, match="nonfinite can't change"):
        opt.advance()


def test_raise_waits_and_names_the_variable():
    x, y = cupy.ones(3), Variable(cupy.ones(3, np.float16), name="y")
    opt = RMSprop(nonfinite="raise")
    opt.apply_gradients([(cupy.ones(3), x), (cupy.ones(3, np.float16), y)])
    before = [x.get().tobytes(), *(w.tobytes() for w in opt.get_weights())]
    with pytest.raises(FloatingPointError, match="Gradient of variable 1 \\('y', float16"):
        opt.apply_gradients([(cupy.ones(3), x), (cupy.full(3, np.inf, np.float16), y)])
    assert [x.get().tobytes(), *(w.tobytes() for w in opt.get_weights())] == before


def test_a_constraint_is_not_applied_in_a_step_that_is_left_out():
    x = Variable(cupy.full(2, -1.0), constraint=abs)
    opt = RMSprop(nonfinite="skip", clipnorm=1.0)
    opt.apply_gradients([(cupy.full(2, np.nan), x)])
    assert (x.numpy() == -1).all()
    assert opt.skipped == 1


def test_arrays_of_several_libraries_are_left_out_together():
    x, n = cupy.ones(2), np.ones(2)
    opt = RMSprop(nonfinite="skip")
    opt.apply_gradients([(cupy.full(2, np.inf), x), (np.ones(2), n)])
    opt.apply_gradients([(cupy.ones(2), x), (np.full(2, np.nan), n)])
    assert (x.get() == 1).all()
    assert (n == 1).all()
    assert opt.skipped == 2


def test_a_bad_gradient_on_one_device_leaves_out_the_step_on_all():
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two devices")
    x = cupy.ones(3)
    with cupy.cuda.Device(1):
        y, bad = cupy.ones(3), cupy.array([1, np.inf, 1])
        good = cupy.ones(3)
    opt = RMSprop(nonfinite="skip")
    for gradient in (bad, good, bad):
        opt.apply_gradients([(cupy.ones(3), x), (gradient, y)])
    assert (opt.iterations, opt.skipped) == (1, 2)
    assert (x.get() == y.get()).all()


@pytest.mark.parametrize("settings", [{}, {"clipvalue": 0.5, "clipnorm": 0.5}, {"global_clipnorm": 0.5}], ids=str)
def test_a_loss_scale_divides_and_follows_as_on_the_host(stream, settings):
    hosts = [np.ones(k + 2, np.float16) for k in range(5)]
    variables = [cupy.asarray(h) for h in hosts]
    here, there = (RMSprop(0.1, nonfinite="skip", loss_scale=LossScale(8.0, 2), **settings) for _ in range(2))
    for step in range(8):
        gradients = drawn(hosts, step if step < 4 else 0)
        scales = here.loss_scale.scale, there.loss_scale.scale
        assert scales[0] == scales[1]
        scaled = [g * np.float16(scales[0]) for g in gradients]
        here.apply_gradients(list(zip(scaled, hosts, strict=True)))
        there.apply_gradients([(cupy.asarray(g), v) for g, v in zip(scaled, variables, strict=True)])
    assert there.loss_scale.get_weights() == here.loss_scale.get_weights() == [8, 0]
    for h, v in zip(hosts, variables, strict=True):
        np.testing.assert_allclose(cupy.asnumpy(v), h, rtol=2e-3)


def test_a_step_that_is_counted_while_the_count_is_read_is_not_lost():
    from rmsprop_cupy.counters import Tally

    class Growing:
        number = 0

        def __getitem__(self, _):
            self.number += 1  # as by a step of another thread
            return self.number

    tally = object.__new__(Tally)
    tally._host, tally.taken, tally._decided, tally._replays = Growing(), 0, {}, {}
    assert sum(tally.take() for _ in range(3)) == tally._host.number


def test_a_loss_scale_is_not_captured():
    x, stream = cupy.ones(2), cupy.cuda.Stream(non_blocking=True)
    opt = RMSprop(nonfinite="skip", loss_scale=LossScale())
    opt.build([x])
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="loss_scale"):
            opt.apply_gradients([(x.copy(), x)])
        stream.end_capture()


def test_a_scale_other_than_the_captured_one_ends_the_replays():
    v, stream = cupy.ones(3), cupy.cuda.Stream(non_blocking=True)
    opt = RMSprop(nonfinite="skip", loss_scale=LossScale(1.0))
    opt.build([v])
    g = v.copy()
    with stream:
        stream.begin_capture()
        opt.apply_gradients([(g, v)])
        stream.end_capture()
        opt.loss_scale = LossScale(2.0)
        with pytest.raises(RuntimeError, match="loss_scale"):
            opt.advance()
