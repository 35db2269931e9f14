"""Variables on several devices in one step."""

import copy
import sys
from contextlib import ExitStack, nullcontext

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, Windows
from rmsprop.arrays.libraries import to_numpy
from rmsprop_numba.kernels import BLOCK

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(
        cupy.cuda.is_available() and cupy.cuda.runtime.getDeviceCount() < 2, reason="only one CUDA device"
    ),
]

SETTINGS = [{}, {"momentum": 0.9, "centered": True}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}]


def spread(hosts):
    """Return arrays that are on two devices by turns."""
    arrays = []
    for i, host in enumerate(hosts):
        with cupy.cuda.Device(i % 2):
            arrays.append(cupy.asarray(host))
    return arrays


@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_list_on_two_devices_is_updated_like_one_on_the_host(settings, count, current):
    rng = np.random.default_rng(0)
    hosts = [rng.standard_normal(int(n)).astype(np.float32) for n in rng.integers(1, 2 * BLOCK, count + 1)[1:]]
    variables, gradients = spread(hosts), spread(hosts)
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    with cupy.cuda.Device(current):
        for _ in range(3):
            one.apply_gradients(zip(gradients, variables, strict=True))
            two.apply_gradients([(g.get(), h) for g, h in zip(gradients, hosts, strict=True)])
        weights = one.get_weights()
    for variable, host in zip(variables, hosts, strict=True):
        np.testing.assert_allclose(variable.get(), host, rtol=1e-5, atol=1e-6)
    for slot, expected in zip(weights, two.get_weights(), strict=True):
        np.testing.assert_allclose(slot, expected, rtol=1e-5, atol=1e-6)
    assert [v.device.id for v in variables] == [w.array.device.id for w in one.weights[1 : count + 1]]


@pytest.mark.parametrize("state_dtype", ["bfloat16", "uint8"])
@pytest.mark.parametrize("settings", [{}, {"nonfinite": "skip", "momentum": 0.9, "global_clipnorm": 0.5}], ids=str)
@pytest.mark.parametrize("current", [0, 1])
def test_a_list_on_two_devices_with_state_in_fewer_bits_is_updated_like_its_arrays_on_one(
    state_dtype, settings, current
):
    rng = np.random.default_rng(0)
    hosts = [rng.standard_normal((3, 700)).astype(np.float32) for _ in range(6)]
    options = {"state_dtype": state_dtype, **settings}
    variables, alone = spread(hosts), [cupy.asarray(h) for h in hosts]
    one, two = RMSprop(0.1, **options), RMSprop(0.1, **options)
    with cupy.cuda.Device(current):
        for step in range(4):
            gradients = [rng.standard_normal((3, 700)).astype(np.float32) for _ in hosts]
            gradients[3] *= np.nan if step == 1 and settings else 1
            one.apply_gradients(zip(spread(gradients), variables, strict=True))
            with cupy.cuda.Device(0):
                two.apply_gradients([(cupy.asarray(g), v) for g, v in zip(gradients, alone, strict=True)])
    for slot, expected in zip(one.get_weights(), two.get_weights(), strict=True):
        assert slot.tobytes() == expected.tobytes()
    for variable, expected in zip(variables, alone, strict=True):
        assert variable.get().tobytes() == expected.get().tobytes()
    for variable in variables:
        for name in one.get_slot_names():
            devices = {part.device.id for part in one.get_slot(variable, name).parts.values()}
            assert devices == {variable.device.id}


@pytest.fixture
def far():
    """Make arrays on a device that is not the current one."""

    def asarray(*arguments):
        with cupy.cuda.Device(1):
            return cupy.asarray(*arguments)

    with cupy.cuda.Device(0):
        yield asarray


def ones(asarray, count=6, dtype=np.float32):
    return [asarray(np.ones((3, 2), dtype)) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 6])
def test_a_gradient_on_another_device_is_refused_before_anything_changes(far, count):
    variables = ones(far, count)
    opt = RMSprop(0.1)
    bad = cupy.ones((3, 2), np.float32), IndexedSlices(cupy.ones((1, 2), np.float32), cupy.asarray([0]))
    mixed = [kind(far(np.ones((1, 2), np.float32)), cupy.asarray([0])) for kind in (IndexedSlices, part)]
    windows = Windows(cupy.ones((1, 1, 2), np.float32), [(0, 0)])
    for gradient in (*bad, *mixed, windows, cupy.ones((3, 2), np.float64)):
        pairs = [*zip(ones(far, count - 1), variables, strict=False), (gradient, variables[-1])]
        with pytest.raises(ValueError, match=f"Gradient of variable {count - 1} .* device 0, not on device 1"):
            opt.apply_gradients(pairs)
    assert opt.iterations == 0
    assert all((v.get() == 1).all() for v in variables)


def part(values, start):
    return Windows(values[None], start.repeat(2)[None])


def give_aliases(far, variables):
    return [(b, a) for a, b in zip(variables, [*variables[1:], variables[0]], strict=True)]


def give_other_dtypes(far, variables):
    return [(far(np.ones((3, 2))), v) for v in variables]


def give_numbers(far, variables):
    return [([[1.0, 1.0]] * 3, v) for v in variables]


def give_strided(far, variables):
    return [(far(np.ones((2, 3), np.float32)).T, v) for v in variables]


def give_sparse(far, variables):
    return [(IndexedSlices(far(np.ones((2, 2), np.float32)), far(np.asarray([2, 2]))), v) for v in variables]


def give_sparse_numbers(far, variables):
    return [(IndexedSlices([[1.0, 1.0]] * 2, [2, 2]), v) for v in variables]


def give_windows(far, variables):
    return [(Windows(far(np.ones((2, 2, 2), np.float32)), [(0, 0), (1, 0)]), v) for v in variables]


def give_windows_and_starts(far, variables):
    starts = far(np.asarray([[0, 0], [1, 0]], np.int32))
    return [(Windows(far(np.ones((2, 2, 2))), starts), v) for v in variables]


GIVEN = [give_aliases, give_other_dtypes, give_numbers, give_strided, give_sparse, give_sparse_numbers]
GIVEN += [give_windows, give_windows_and_starts]


@pytest.mark.parametrize("give", GIVEN)
@pytest.mark.parametrize("settings", [{}, {"validate": True, "global_clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("count", [2, 6])
def test_what_a_gradient_may_be_it_may_be_on_a_device_that_is_not_current(far, give, settings, count):
    variables, near = ones(far, count), ones(cupy.asarray, count)
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    for _ in range(2):
        one.apply_gradients(give(far, variables))
        two.apply_gradients(give(cupy.asarray, near))
    for a, b in zip(variables, near, strict=True):
        assert a.device.id == 1
        np.testing.assert_array_equal(a.get(), b.get())


def test_a_variable_with_a_constraint_may_be_on_a_device_that_is_not_current(far):
    v = Variable(far(np.ones((3, 2))), constraint=lambda w: w.clip(0.9, None))
    opt = RMSprop(0.5)
    opt.apply_gradients([(far(np.ones((3, 2))), v)])
    assert (v.numpy() == 0.9).all()
    assert v.array.device.id == opt.get_slot(v, "rms").array.device.id == 1
    assert opt.add_slot(v, "extra", "ones").array.device.id == 1
    v.assign(far(np.full((3, 2), 2.0)))
    assert (v.numpy() == 2).all()


def test_numpy_and_two_devices_are_clipped_together(far):
    arrays, gradients = ([np.ones((3, 2)), far(np.ones((3, 2))), cupy.ones((3, 2))] for _ in range(2))
    alone = np.ones((9, 2))
    one, two = RMSprop(0.1, global_clipnorm=1.0), RMSprop(0.1, global_clipnorm=1.0)
    with pytest.raises(ValueError, match="Gradient of variable 2"):
        one.apply_gradients([(gradients[i], arrays[j]) for i, j in [(0, 0), (1, 1), (1, 2)]])
    one.apply_gradients(zip(gradients, arrays, strict=True))
    two.apply_gradients([(alone.copy(), alone)])
    for array in (arrays[0], arrays[1].get(), arrays[2].get()):
        np.testing.assert_allclose(array, alone[:3])


def test_devices_wait_for_each_other_where_they_must(far):
    gpusim = sys.modules.get("gpusim")
    hosts = [np.full(5, 2.0), np.full(5, 3.0)]
    one, two = RMSprop(0.1, global_clipnorm=1.0), RMSprop(0.1, global_clipnorm=1.0)
    with gpusim.deferred() if gpusim else nullcontext(), ExitStack() as entered:
        for device in (0, 1):
            with cupy.cuda.Device(device):
                entered.enter_context(cupy.cuda.Stream(non_blocking=True))
        variables, gradients = spread(hosts), spread(hosts)
        for _ in range(3):
            one.apply_gradients(zip(gradients, variables, strict=True))
            two.apply_gradients([(np.full(5, n), host) for n, host in zip((2.0, 3.0), hosts, strict=True)])
        results = [to_numpy(v) for v in variables]
    for result, host in zip(results, hosts, strict=True):
        np.testing.assert_allclose(result, host)


def test_sparse_gradients_stay_on_their_device():
    with cupy.cuda.Device(1):
        table = cupy.ones((4, 3))
        gradient = IndexedSlices(cupy.ones((2, 3)), cupy.asarray([2, 2]))
    opt = RMSprop(0.1, clipnorm=1.0)
    opt.apply_gradients([(gradient, table)])
    assert (to_numpy(table) < 1).any(1).tolist() == [False, False, True, False]


def test_a_captured_step_needs_one_device():
    variables = spread([np.ones(3), np.ones(3)])
    opt = RMSprop()
    opt.build(variables)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="one device"):
            opt.apply_gradients([(v, v) for v in variables])
        stream.end_capture()


def test_variables_are_rebound_on_their_own_device_only():
    other = cupy.ones(3)
    with cupy.cuda.Device(1):
        x, y, gradient = cupy.ones(3), cupy.ones(3), cupy.ones(3)
    opt = RMSprop(0.1)
    opt.apply_gradients([(gradient, x)])
    twin = copy.deepcopy(opt)
    for _ in range(2):
        with pytest.raises(ValueError, match="held by nobody"):
            twin.apply_gradients([(gradient, y)])
        for optimizer in (opt, twin):
            with pytest.raises(ValueError, match="Variable 0 .*Device"):
                optimizer.rebind([other])
    twin.rebind([y])
    assert twin.apply_gradients([(gradient, y)]) == 2
    del x
    opt.forget()
    assert len(opt.get_weights()) == 1


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("count", [1, 6])
def test_a_step_that_could_be_replayed_is_taken_whichever_device_is_current(far, settings, count):
    rng = np.random.default_rng(0)
    hosts = [rng.standard_normal((3, 2)).astype(np.float32) for _ in range(count)]
    variables, gradients = [far(h) for h in hosts], [far(h) for h in hosts]
    one, two = RMSprop(0.1, **settings), RMSprop(0.1, **settings)
    for device in (1, 1, 1, 0, 1, 0):
        with cupy.cuda.Device(device):
            one.apply_gradients(zip(gradients, variables, strict=True))
        two.apply_gradients([(g.get(), h) for g, h in zip(gradients, hosts, strict=True)])
    for variable, host in zip(variables, hosts, strict=True):
        np.testing.assert_allclose(variable.get(), host, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 6])
def test_a_gradient_on_another_device_is_refused_after_steps_that_could_be_replayed(far, count):
    variables, opt = ones(cupy.asarray, count), RMSprop(0.1)
    for _ in range(3):
        opt.apply_gradients(zip(ones(cupy.asarray, count), variables, strict=True))
    before = [v.get().tobytes() for v in variables]
    with pytest.raises(ValueError, match=r"Gradient of variable 0.*on device 1"):
        opt.apply_gradients([*zip([*ones(far, 1), *ones(cupy.asarray, count - 1)], variables, strict=True)])
    assert [v.get().tobytes() for v in variables] == before


def test_sparse_gradients_on_two_devices_are_sorted_there():
    rng = np.random.default_rng(0)
    hosts = [rng.standard_normal((9, 2)).astype(np.float32) for _ in range(6)]
    variables, indices = spread(hosts), spread([rng.integers(0, 9, 300) for _ in hosts])
    values = spread([rng.standard_normal((300, 2)).astype(np.float32) for _ in hosts])
    one, two = RMSprop(0.1, global_clipnorm=1.0), RMSprop(0.1, global_clipnorm=1.0)
    for _ in range(2):
        one.apply_gradients([(IndexedSlices(g, i), v) for g, i, v in zip(values, indices, variables, strict=True)])
        listed = [IndexedSlices(g.get(), i.get()) for g, i in zip(values, indices, strict=True)]
        two.apply_gradients(zip(listed, hosts, strict=True))
    for variable, host in zip(variables, hosts, strict=True):
        np.testing.assert_allclose(variable.get(), host, rtol=1e-4, atol=1e-5)
