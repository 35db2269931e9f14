"""Steps captured in CUDA graphs, on a device or in a simulator of one."""

import copy
import pickle
import sys

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, Windows, schedules
from rmsprop.tapes.recorder import Recorder

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]

SETTINGS = [
    {},
    {"momentum": 0.9, "centered": True},
    {"global_clipnorm": 0.5},
    {"clipvalue": 0.1, "clipnorm": 0.2, "momentum": 0.5},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "bias_correction": True, "maximize": True},
    {"momentum_includes_lr": False, "weight_decay": 0.1, "decoupled": True, "use_ema": True, "centered": True},
]


@pytest.fixture
def stream():
    """Return the current stream, one that can capture."""
    with cupy.cuda.Stream(non_blocking=True) as stream:
        yield stream
        if stream.is_capturing():
            stream.end_capture()
        stream.synchronize()


def problem(count, dtypes=(np.float32,)):
    """Return variables, and gradients in arrays that stay."""
    rng = np.random.default_rng(0)
    sizes = [int(n) for n in rng.integers(0, 1500, count)]
    hosts = [rng.standard_normal(n).astype(dtypes[i % len(dtypes)]) for i, n in enumerate(sizes)]
    return [cupy.asarray(h) for h in hosts], [cupy.asarray(h[::-1].copy()) for h in hosts]


def captured(stream, optimizer, pairs):
    """Return the graph of a step."""
    stream.begin_capture()
    optimizer.apply_gradients(pairs)
    return stream.end_capture()


def decaying(**settings):
    return RMSprop(schedules.ExponentialDecay(0.1, 10, 0.5), **settings)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("count", "dtypes"), [(1, [np.float32]), (2, [np.complex64, np.float16]),
                                               (8, [np.float32, np.float64])], ids=str)  # fmt: skip
def test_replays_are_bitwise_steps_with_a_schedule(stream, settings, count, dtypes):
    variables, gradients = problem(count, dtypes)
    twins = [v.copy() for v in variables]
    one, two = decaying(**settings), decaying(**settings)
    one.build(variables)
    graph = captured(stream, one, list(zip(gradients, variables, strict=True)))
    assert one.iterations == 0
    for i in range(100 if count == 8 and settings == SETTINGS[2] else 5):
        for gradient in gradients:
            gradient *= -0.99
        assert one.advance() == i + 1
        graph.launch(stream)
        two.apply_gradients(zip(gradients, twins, strict=True))
    for a, b in zip(variables, twins, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count", [2, 8])
def test_replays_follow_multipliers_and_these_can_not_change_meanwhile(stream, count):
    variables, gradients = problem(count)
    twins = [v.copy() for v in variables]
    one, two = (decaying(weight_decay=0.1, decoupled=True, use_ema=True) for _ in range(2))
    for opt, arrays in ((one, variables), (two, twins)):
        opt.build(arrays)
        opt.group(arrays[1], lr_mult=0.5, wd_mult=2.0)
    graph = captured(stream, one, list(zip(gradients, variables, strict=True)))
    with pytest.raises(RuntimeError, match="discard_captured"):
        one.group(variables[0], lr_mult=2.0)
    for _ in range(3):
        one.advance()
        graph.launch(stream)
        two.apply_gradients(zip(gradients, twins, strict=True))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(variables, twins, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


def test_advance_is_one_asynchronous_copy(stream):
    gpusim = sys.modules.get("gpusim") or pytest.skip("only a simulator counts copies")
    variables, gradients = problem(30, [np.float32, np.float64])
    opt = decaying(global_clipnorm=1.0)
    opt.build(variables)
    graph = captured(stream, opt, list(zip(gradients, variables, strict=True)))
    for _ in range(2):
        opt.advance()
        graph.launch(stream)
    stream.synchronize()
    gpusim.reset_counters()
    opt.advance()
    graph.launch(stream)
    counted = gpusim.counters()
    assert counted["memcpy_async_h2d"] == counted["graph_launches"] == 1
    assert counted["synchronisations"] == counted["mallocs"] == counted["kernel_launches"] == 0


def test_discarded_steps_cost_nothing_more(stream):
    gpusim = sys.modules.get("gpusim") or pytest.skip("only a simulator counts copies")
    variables, gradients = problem(6)
    opt = decaying(clipnorm=1.0)
    opt.build(variables)
    used = []
    for _ in range(3):
        graph = captured(stream, opt, list(zip(gradients, variables, strict=True)))
        opt.advance()
        graph.launch(stream)
        gpusim.reset_counters()
        opt.advance()
        graph.launch(stream)
        assert gpusim.counters()["memcpy_async_h2d"] == 1
        stream.synchronize()
        opt.discard_captured()
        used.append(cupy.get_default_memory_pool().used_bytes())
    assert used[0] == used[2]
    with pytest.raises(RuntimeError, match="no step has been captured"):
        opt.advance()


def test_a_learning_rate_beyond_float32_is_infinite_there(stream):
    x = cupy.ones(3)
    opt = RMSprop(1e300)
    opt.build([x])
    graph = captured(stream, opt, [(cupy.ones(3), x)])
    opt.advance()
    graph.launch(stream)
    assert (x.get() < -1e299).all()


def test_tapes_learn_of_replays(stream):
    x = Variable(cupy.ones(3))
    opt = RMSprop(0.1)
    opt.build([x])
    captured(stream, opt, [(cupy.ones(3), x)])

    class Told(Recorder):
        _new_value = None

        def forget(self, source):
            told.append(source)

    told = []
    with Told():
        opt.advance()
    assert told == [x]


def test_gradients_of_a_captured_step_stay_alive(stream):
    x, y = cupy.ones(5), cupy.ones(5)
    one, two = RMSprop(0.1), RMSprop(0.1)
    one.build([x])
    graph = captured(stream, one, [(cupy.arange(5.0), x)])
    others = [cupy.full(5, 7.0) for _ in range(5)]
    one.advance()
    graph.launch(stream)
    two.apply_gradients([(cupy.arange(5.0), y)])
    np.testing.assert_array_equal(x.get(), y.get())
    assert all((other == 7).all() for other in others)


def test_steps_between_replays_do_not_disturb_the_graph(stream):
    variables, gradients = problem(10)
    twins = [v.copy() for v in variables]
    others = [0.5 * g for g in gradients]
    one, two = decaying(clipnorm=1.0), decaying(clipnorm=1.0)
    one.build(variables)
    graph = captured(stream, one, list(zip(gradients, variables, strict=True)))
    for _ in range(3):
        one.advance()
        graph.launch(stream)
        one.apply_gradients(zip(others, variables, strict=True))
        one.apply_gradients([(g.copy(), v) for g, v in zip(others[::2], variables[::2], strict=True)])
        cupy.get_default_memory_pool().free_all_blocks()
        two.apply_gradients(zip(gradients, twins, strict=True))
        two.apply_gradients(zip(others, twins, strict=True))
        two.apply_gradients(zip(others[::2], twins[::2], strict=True))
    for a, b in zip(variables, twins, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


def test_a_gradient_in_the_memory_of_a_variable_counts_as_before_each_replay(stream):
    x, y = cupy.asarray([1.0, 2.0]), cupy.asarray([3.0, 4.0])
    a, b = x.copy(), y.copy()
    one, two = RMSprop(0.1), RMSprop(0.1)
    one.build([x, y])
    graph = captured(stream, one, [(y, x), (x, y)])
    for _ in range(3):
        one.advance()
        graph.launch(stream)
        two.apply_gradients([(b.copy(), a), (a.copy(), b)])
    np.testing.assert_array_equal(x.get(), a.get())
    np.testing.assert_array_equal(y.get(), b.get())


def test_hyperparameters_that_may_change_do_and_the_others_are_refused(stream):
    x, y = cupy.ones(5), cupy.ones(5)
    one, two = RMSprop(0.1, momentum=0.9, clipvalue=0.5), RMSprop(0.1, momentum=0.9, clipvalue=0.5)
    one.build([x])
    graph = captured(stream, one, [(cupy.ones(5), x)])
    for setting, value in [("rho", 0.5), ("momentum", 0.1), ("epsilon", 0.1), ("decay", 0.5), ("lr", 0.2)]:
        for optimizer in (one, two):
            setattr(optimizer, setting, value)
        one.advance()
        graph.launch(stream)
        two.apply_gradients([(cupy.ones(5), y)])
    np.testing.assert_array_equal(x.get(), y.get())
    for setting, value in [("clipvalue", 0.1), ("clipnorm", 1.0), ("centered", True)]:
        old = getattr(one, setting)
        setattr(one, setting, value)
        with pytest.raises(RuntimeError, match=setting):
            one.advance()
        setattr(one, setting, old)
    assert one.iterations == 5


REFUSED = {
    "no slots yet": (lambda: [(cupy.ones(3), cupy.ones(3))], "build"),
    "another dtype": (lambda: [(cupy.ones(3, "f4"), cupy.ones(3))], "dtype of their variables"),
    "numbers": (lambda: [([1.0, 2.0, 3.0], cupy.ones(3))], "dense arrays|disallowed"),
    "sparse": (lambda: [(IndexedSlices(cupy.ones(1), cupy.asarray([0])), cupy.ones(3))], "dense arrays"),
    "windows": (lambda: [(Windows(cupy.ones((1, 2)), [(1,)]), cupy.ones(3))], "dense arrays"),
    "a constraint": (lambda: [(cupy.ones(3), Variable(cupy.ones(3), constraint=abs))], "constraints"),
    "NumPy besides": (lambda: [(cupy.ones(3), cupy.ones(3)), (np.ones(3), np.ones(3))], "CuPy arrays"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_replay_could_not_repeat_is_not_captured(stream, case):
    make, reason = REFUSED[case]
    pairs = make()
    opt = RMSprop()
    if case != "no slots yet":
        opt.build([v for _, v in pairs])
    before = [v.numpy() if isinstance(v, Variable) else v.copy() for _, v in pairs]
    stream.begin_capture()
    with pytest.raises(RuntimeError, match=reason):
        opt.apply_gradients(pairs)
    stream.end_capture()
    assert all((np.asarray(b.get() if hasattr(b, "get") else b) == 1).all() for b in before)
    assert opt.iterations == 0
    with pytest.raises(RuntimeError, match="no step has been captured"):
        opt.advance()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_belongs_to_no_graph(stream, copied):
    x = cupy.ones(3)
    opt = RMSprop()
    opt.build([x])
    captured(stream, opt, [(cupy.ones(3), x)])
    twin = copied(opt)
    with pytest.raises(RuntimeError, match="captured"):
        twin.advance()


def test_empty_arrays_are_captured_like_others(stream):
    variables = [*[cupy.ones((0, 2)) for _ in range(5)], cupy.ones(3)]
    gradients = [cupy.ones_like(v) for v in variables]
    opt = RMSprop(0.1, global_clipnorm=1.0)
    opt.build(variables)
    for part in (slice(None), slice(5)):
        graph = captured(stream, opt, list(zip(gradients[part], variables[part], strict=True)))
        opt.advance()
        graph.launch(stream)
    assert opt.iterations == 2
    assert (variables[-1].get() < 1).all()


def test_a_step_captured_again_goes_by_its_own_settings(stream):
    variables, gradients = problem(6)
    twins = [v.copy() for v in variables]
    one, two = decaying(), decaying()
    one.build(variables)
    for setting, value in [("global_clipnorm", 1.0), ("global_clipnorm", None), ("clipvalue", 0.1)]:
        for optimizer in (one, two):
            setattr(optimizer, setting, value)
        graph = captured(stream, one, list(zip(gradients, variables, strict=True)))
        for _ in range(2):
            one.advance()
            graph.launch(stream)
            two.apply_gradients(zip(gradients, twins, strict=True))
    for a, b in zip(variables, twins, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("settings", [{}, {"global_clipnorm": 0.5}], ids=str)
def test_a_stream_that_is_current_by_use_captures_and_stays_current(count, settings):
    variables, gradients = problem(count)
    twins = [v.copy() for v in variables]
    one, two = decaying(**settings), decaying(**settings)
    one.build(variables)
    before, own = cupy.cuda.get_current_stream(), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    own.use()
    try:
        graph = captured(own, one, list(zip(gradients, variables, strict=True)))
        assert cupy.cuda.get_current_stream() == own
        assert one.iterations == 0
        one.advance()
        graph.launch(own)
        two.apply_gradients(zip(gradients, twins, strict=True))
        own.synchronize()
    finally:
        before.use()
    for a, b in zip(variables, twins, strict=True):
        np.testing.assert_array_equal(a.get(), b.get())
