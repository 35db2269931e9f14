"""Steps that a device has not got to yet: whatever the host does meanwhile, it must not change them."""

import gc
import sys
from contextlib import nullcontext

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, schedules

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
cupyx = pytest.importorskip("cupyx")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def stream():
    """Return the current stream, which in a simulator puts its work off until something waits for it."""
    gpusim = sys.modules.get("gpusim")
    gc.disable()  # a simulator runs Python inside of a kernel, where to free memory would be to wait for itself
    with gpusim.deferred() if gpusim else nullcontext(), cupy.cuda.Stream(non_blocking=True) as stream:
        yield stream
        stream.synchronize()
    gc.enable()


def drawn(sizes, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(n).astype(np.float32) for n in sizes]


def devices(hosts):
    return [cupy.asarray(h) for h in hosts]


def assert_alike(arrays, hosts):
    for a, h in zip(arrays, hosts, strict=True):
        np.testing.assert_allclose(a.get(), h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"clipnorm": 0.5}, {"momentum": 0.9, "global_clipnorm": 0.5}], ids=str)
@pytest.mark.parametrize("lengths", [[6] * 5, [5, 6, 7, 8, 5], [8, 2, 8, 4]], ids=str)
def test_steps_may_follow_each_other_without_waiting(stream, settings, lengths):
    hosts = drawn(range(20, 28), 0)
    gradients = [drawn(range(20, 20 + n), seed) for seed, n in enumerate(lengths, 1)]
    variables, prepared = devices(hosts), [devices(g) for g in gradients]
    stream.synchronize()
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    for on_device in prepared:
        one.apply_gradients(zip(on_device, variables, strict=False))
    for given in gradients:
        two.apply_gradients(zip(given, hosts, strict=False))
    assert_alike(variables, hosts)


@pytest.mark.parametrize("first", [{"momentum": 0.0}, {"momentum": 0.9}, {"centered": True}], ids=str)
def test_a_list_may_change_between_formulas(stream, first):
    hosts, gradients = drawn(range(20, 28), 0), drawn(range(20, 28), 1)
    variables, on_device = devices(hosts), devices(gradients)
    one, two = RMSprop(0.1, **first), RMSprop(0.1, **first)
    for centered, momentum in [(False, 0.9), (True, 0.0), (True, 0.9), (False, 0.0)]:
        one.apply_gradients(zip(on_device, variables, strict=True))
        two.apply_gradients(zip(gradients, hosts, strict=True))
        for optimizer in (one, two):
            optimizer.centered, optimizer.momentum = centered, momentum
    one.apply_gradients(zip(on_device, variables, strict=True))
    two.apply_gradients(zip(gradients, hosts, strict=True))
    assert_alike(variables, hosts)


def test_an_optimizer_may_be_gone_before_its_step_is_done(stream):
    hosts, gradients = drawn(range(20, 28), 0), drawn(range(20, 28), 1)
    variables, on_device = devices(hosts), devices(gradients)
    table = cupy.ones((4, 3), np.float32)
    rows = IndexedSlices(cupy.ones((2, 3), np.float32), cupy.asarray([1, 9]))
    stream.synchronize()
    opt = RMSprop(0.1, clipnorm=1.0)
    opt.apply_gradients([*zip(on_device, variables, strict=True), (rows, table)])
    del opt
    gc.collect()
    others = [cupy.full(n, 7, np.uint64) for n in (1, 2, 8, 27, 40, 64)]  # where memory may be free
    pinned = [cupyx.zeros_pinned(3, np.int64) for _ in range(20)]
    RMSprop(0.1, clipnorm=1.0).apply_gradients(zip(gradients, hosts, strict=True))
    assert_alike(variables, hosts)
    assert (table.get() < 1).all(1).tolist() == [False, True, False, False]
    assert all((other == 7).all() for other in others)
    assert not np.any(pinned)


@pytest.mark.parametrize("count", [1, 8])
def test_an_optimizer_may_be_gone_before_its_step_in_another_stream_is_done(stream, count):
    hosts, gradients = drawn(range(20, 20 + count), 0), drawn(range(20, 20 + count), 1)
    variables, on_device = devices(hosts), devices(gradients)
    opt, twin = RMSprop(0.1, clipnorm=1.0), RMSprop(0.1, clipnorm=1.0)
    opt.apply_gradients(zip(on_device, variables, strict=True))
    stream.synchronize()
    with cupy.cuda.Stream(non_blocking=True) as own:
        opt.apply_gradients(zip(on_device, variables, strict=True))
    del opt
    others = [cupy.full(n, 7, np.uint64) for _ in range(10) for n in (1, 2, 8, 10, 27, 40, 64)]
    stream.synchronize()
    own.synchronize()
    for _ in range(2):
        twin.apply_gradients(zip(gradients, hosts, strict=True))
    assert_alike(variables, hosts)
    assert all((other == 7).all() for other in others)


@pytest.mark.parametrize("settings", [{"clipnorm": 2.0}, {"global_clipnorm": 3.0}], ids=str)
def test_the_host_and_the_device_are_clipped_together_without_confusion(stream, settings):
    hosts, gradients = drawn(range(20, 28), 0), drawn(range(20, 28), 1)
    variables = [cupy.asarray(h) if i % 2 else h.copy() for i, h in enumerate(hosts)]
    mixed = [cupy.asarray(g) if i % 2 else g for i, g in enumerate(gradients)]
    one, two = (RMSprop(0.1, **settings) for _ in range(2))
    for _ in range(2):
        one.apply_gradients(zip(mixed, variables, strict=True))
        two.apply_gradients(zip(gradients, hosts, strict=True))
    assert_alike(map(cupy.asarray, variables), hosts)


def captured(stream, optimizer, gradients, variables):
    stream.begin_capture()
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return stream.end_capture()


def schedule():
    return schedules.ExponentialDecay(0.1, 2, 0.5)


@pytest.mark.parametrize("settings", [{}, {"global_clipnorm": 0.5}], ids=str)
def test_steps_are_captured_and_replayed_while_others_are_under_way(stream, settings):
    hosts, gradients = drawn(range(20, 28), 0), drawn(range(20, 28), 1)
    variables, on_device = devices(hosts), devices(gradients)
    one, two = RMSprop(schedule(), **settings), RMSprop(schedule(), **settings)
    one.build(variables)
    steps = 0
    for order in (slice(None), slice(None, None, -1)):  # captured twice, in another order
        one.apply_gradients(zip(on_device, variables, strict=True))
        graph = captured(stream, one, on_device[order], variables[order])
        for _ in range(3):
            one.advance()
            graph.launch(stream)
        steps += 4
    for _ in range(steps):
        two.apply_gradients(zip(gradients, hosts, strict=True))
    assert_alike(variables, hosts)
    assert one.iterations == steps


def test_two_captured_steps_are_replayed_in_turn(stream):
    hosts, gradients = drawn(range(20, 28), 0), drawn(range(20, 28), 1)
    variables, on_device = devices(hosts), devices(gradients)
    one, two = RMSprop(schedule(), clipnorm=1.0), RMSprop(schedule(), clipnorm=1.0)
    one.build(variables)
    graphs = [captured(stream, one, on_device[part], variables[part]) for part in (slice(0, 4), slice(4, 8))]
    for i in range(6):
        one.advance()
        graphs[i % 2].launch(stream)
        part = slice(0, 4) if i % 2 == 0 else slice(4, 8)
        two.apply_gradients(zip(gradients[part], hosts[part], strict=True))
    assert_alike(variables, hosts)


def test_captured_steps_may_be_discarded_before_their_replay_is_done(stream):
    hosts, gradients = drawn(range(20, 28), 0), drawn(range(20, 28), 1)
    variables, on_device = devices(hosts), devices(gradients)
    one, two = RMSprop(schedule(), clipnorm=1.0), RMSprop(schedule(), clipnorm=1.0)
    one.build(variables)
    for _ in range(3):
        graph = captured(stream, one, on_device, variables)
        for _ in range(2):
            one.advance()
            graph.launch(stream)
            two.apply_gradients(zip(gradients, hosts, strict=True))
        one.discard_captured()
    assert_alike(variables, hosts)


def test_a_step_in_another_stream_follows_that_of_the_first(stream):
    hosts = drawn(range(20, 28), 0)
    gradients = [drawn(range(20, 28), seed) for seed in (1, 2, 3, 4)]
    variables, prepared = devices(hosts), [devices(g) for g in gradients]
    stream.synchronize()
    one, two = RMSprop(0.1, clipnorm=1.0), RMSprop(0.1, clipnorm=1.0)
    done = None
    for i, (given, on_device) in enumerate(zip(gradients, prepared, strict=True)):
        part = slice(0, 8 - i)
        with stream if i % 2 else cupy.cuda.Stream(non_blocking=True) as own:
            if done is not None:
                own.wait_event(done)
            one.apply_gradients(zip(on_device[part], variables[part], strict=True))
            done = own.record()
        two.apply_gradients(zip(given[part], hosts[part], strict=True))
    stream.wait_event(done)
    assert_alike(variables, hosts)
