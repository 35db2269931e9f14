"""Which variable an array is: arrays that were replaced, rebound, forgotten, copied, or moved in memory."""

import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop.checkpoints import saving

DTYPES = ["float16", "float32", "float64", "complex64", "complex128"]
SETTINGS = [{}, {"momentum": 0.9, "centered": True}, {"clipnorm": 1.0}, {"nonfinite": "skip"}]
REPLACED = "held by nobody any more"


def step(opt, *variables):
    """Take a step with gradients of ones."""
    return opt.apply_gradients([(like(v), v) for v in variables])


def like(variable):
    array = variable.array if isinstance(variable, Variable) else variable
    return array * 0 + 1


def state(opt):
    return [w.tobytes() for w in opt.get_weights()]


LOOPS = {
    "maximum": lambda x, xp: xp.maximum(x.real, 0).astype(x.dtype),
    "sum": lambda x, xp: x - 0.5 * x,
    "copy": lambda x, xp: x.copy(),
    "reshaped": lambda x, xp: (x.ravel() * 1).reshape(x.shape),
    "transposed": lambda x, xp: (x.T * 1).T,
    "strided": lambda x, xp: xp.stack([x, x], axis=-1)[..., 0],
    "backwards": lambda x, xp: (x * 1)[::-1],
    "fancy": lambda x, xp: x[xp.arange(len(x))],
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_an_array_that_was_replaced_is_refused_and_nothing_changes(xp, loop, settings):
    x, given = xp.ones((3, 4), "complex64"), None
    opt = RMSprop(0.1, **settings)
    step(opt, x)
    before = state(opt)
    with pytest.raises(ValueError, match=REPLACED) as caught:
        for _ in range(2):
            x = LOOPS[loop](x, xp)
            given = x.copy()
            step(opt, x)
    message = str(caught.value)
    assert all(word in message for word in ("Variable 0", "(3, 4)", "x[...] = ", "rebind", "forget"))
    del caught
    with pytest.raises(ValueError, match=REPLACED) as again:
        step(opt, x)
    assert str(again.value) == message
    assert (x == given).all()
    assert state(opt) == before
    opt.rebind([x])
    step(opt, x)
    assert len(opt.get_weights()) == len(before)
    assert int(opt.iterations) == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_noticed(xp, dtype):
    x = xp.ones(5, dtype)
    opt = RMSprop()
    step(opt, x)
    x = x + x
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "uint8"])
def test_arrays_with_small_state_are_noticed_too(state_dtype):
    x = np.ones((4, 64), np.float32)
    opt = RMSprop(state_dtype=state_dtype)
    step(opt, x)
    before = state(opt)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)
    assert state(opt) == before
    opt.rebind([x])
    assert step(opt, x) == 2


def test_the_memory_of_a_replaced_array_is_let_go_at_once(xp):
    opt = RMSprop()
    x = xp.ones(1000)
    alive = weakref.ref(x)
    step(opt, x)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)
    assert alive() is None
    assert [w.shape for w in opt.get_weights()] == [(), (1000,)]


def test_real_parts_of_transforms_are_noticed():
    x = np.ones((8, 8))
    opt = RMSprop()
    step(opt, x)
    x = np.fft.ifft2(np.fft.fft2(x)).real
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)


def test_attributes_dicts_lists_and_closures_are_noticed(xp):
    @dataclass
    class Reconstruction:
        obj: object

    r = Reconstruction(xp.ones(4, "complex64"))
    opt = RMSprop()
    step(opt, r.obj)
    r.obj = r.obj * xp.exp(xp.array(1j, "complex64"))
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, r.obj)

    params = {"a": xp.ones(2), "b": xp.ones(3)}
    opt = RMSprop()
    step(opt, *params.values())
    params = {name: p * 2 for name, p in params.items()}
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, *params.values())

    layers = [xp.ones(2), xp.ones(2)]
    opt = RMSprop()
    step(opt, *layers)
    layers[1] = layers[1] * 2
    with pytest.raises(ValueError, match=r"Variable 1 .* known variable 1 "):
        step(opt, *layers)

    def closed():
        x = xp.ones(2)
        opt = RMSprop()

        def iterate():
            nonlocal x
            step(opt, x)
            x = x * 2

        return iterate

    iterate = closed()
    iterate()
    with pytest.raises(ValueError, match=REPLACED):
        iterate()


def test_sparse_gradients_notice_it_too(xp):
    def sparse(table):
        opt.apply_gradients([(IndexedSlices(xp.ones((1, 2)), xp.array([1])), table)])

    opt, table = RMSprop(), xp.ones((4, 2))
    sparse(table)
    table = table * 2
    with pytest.raises(ValueError, match=REPLACED):
        sparse(table)
    opt.rebind([table])
    sparse(table)
    assert int(opt.iterations) == 2


def test_minimize_build_add_slot_and_get_slot_notice_it():
    opt, x = RMSprop(), np.ones(2)
    opt.build([x])
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        opt.minimize(lambda x: (x**2).sum(), [x])
    with pytest.raises(ValueError, match=REPLACED):
        opt.build([x])
    with pytest.raises(ValueError, match=REPLACED):
        opt.add_slot(x, "mine")
    with pytest.raises(KeyError):
        opt.get_slot(x, "rms")
    opt.rebind([x])
    assert opt.minimize(lambda x: (x**2).sum(), [x]) == 1


def libraries():
    return {
        "numpy": np,
        "torch": pytest.importorskip("torch"),
        "jax": pytest.importorskip("jax.numpy"),
        "strict": pytest.importorskip("array_api_strict"),
    }


@pytest.mark.parametrize("library", ["numpy", "torch", "jax", "strict"])
def test_a_variable_that_was_replaced_is_refused(library):
    xp = libraries()[library]
    v = Variable(xp.ones(3), name="v")
    alive = weakref.ref(v)
    opt = RMSprop()
    step(opt, v)
    v = Variable(xp.ones(3), name="w")
    with pytest.raises(ValueError, match=r"Variable 0 \('w'.*known variable 0 \('v'.*x\.assign"):
        step(opt, v)
    assert alive() is None
    opt.rebind([v])
    assert step(opt, v) == 2
    for copied in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        twin, u = copied((opt, v))
        assert step(twin, u) == 3


def test_a_new_variable_in_each_step_is_refused_in_the_second():
    opt, x = RMSprop(), np.ones(3)
    step(opt, Variable(x))
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, Variable(x))


def test_a_copy_given_anew_in_each_step_is_refused_in_the_second(xp):
    obj, opt = xp.ones((4, 3)), RMSprop()
    step(opt, obj[xp.array([1, 2])])
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, obj[xp.array([1, 2])])


def test_an_array_whose_first_value_the_user_keeps_is_noticed_one_step_later(xp):
    x0 = xp.ones(3)
    x, opt = x0, RMSprop()
    step(opt, x)
    x = x * 2
    step(opt, x)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)


def test_a_history_of_iterates_hides_it_but_nothing_else_is_lost(xp):
    x, opt, history = xp.ones(3), RMSprop(), []
    for _ in range(3):
        step(opt, x)
        history.append(x)
        x = x * 2
    assert len(opt.get_weights()) == 4


def test_a_second_optimizer_does_not_hide_it(xp):
    x, first, second = xp.ones(3), RMSprop(), RMSprop(momentum=0.9)
    for _ in range(2):
        step(first, x)
        step(second, x)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(first, x)
    with pytest.raises(ValueError, match=REPLACED):
        step(second, x)


def test_views_of_one_array_in_two_optimizers_do_not_hide_it(xp):
    w, first, second = xp.ones((2, 3)), RMSprop(), RMSprop()
    step(first, w[0])
    step(second, w[1], w[0, 1:])
    w = w * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(first, w[0])
    with pytest.raises(ValueError, match=REPLACED):
        step(second, w[1])


def test_arrays_that_join_while_the_others_are_held_are_new(xp):
    arrays, opt = [xp.ones(3) for _ in range(20)], RMSprop(momentum=0.5)
    for n in range(1, 21):
        step(opt, *arrays[:n])
    assert len(opt.get_weights()) == 41
    for n, array in enumerate(arrays):
        assert opt.get_slot(array, "rms").shape == (3,)
        expected = RMSprop(momentum=0.5)
        alone = xp.ones(3)
        for _ in range(20 - n):
            step(expected, alone)
        assert (alone == array).all()


def test_an_array_of_another_shape_or_dtype_joins_whatever_became_of_others(xp):
    opt = RMSprop()
    step(opt, xp.ones(3))
    step(opt, xp.ones(4))
    step(opt, xp.ones(3, "float32"))
    step(opt, Variable(xp.ones((3, 1))))
    assert len(opt.get_weights()) == 5


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_that_are_taken_anew_stay_known_when_others_join(xp, order, dtype):
    w = xp.asarray(np.ones((4, 3, 2), dtype, order=order))
    v = xp.ones((5, 2), dtype)[::2, ::-1]
    opt, expected = RMSprop(), RMSprop()
    parts = [w[0], w[1, :, 0], v[0], w[2:, 1].T, v[1:2]]
    for n in range(1, 6):
        taken = [lambda: w[0], lambda: w[1, :, 0], lambda: v[0], lambda: w[2:, 1].T, lambda: v[1:2]]
        opt.apply_gradients([(xp.ones(f().shape, dtype), f()) for f in taken[:n]])
        gc.collect()
    assert len(opt.get_weights()) == 6
    twins = [p.copy() * 0 + 1 for p in parts]
    for n in range(1, 6):
        step(expected, *twins[:n])
    for part, twin in zip(parts, twins, strict=True):
        assert (part == twin).all()


def test_a_save_in_the_background_does_not_hide_it(tmp_path, monkeypatch):
    go, replacing = threading.Event(), saving.replacing

    @contextmanager
    def waiting(path):
        go.wait()
        with replacing(path) as file:
            yield file

    monkeypatch.setattr(saving, "replacing", waiting)
    opt, x = RMSprop(), np.ones(3)
    step(opt, x)
    writing = opt.save(tmp_path / "x.safetensors", {"x": x}, wait=False)
    assert writing is not None
    x = x * 2
    try:
        with pytest.raises(ValueError, match=REPLACED):
            step(opt, x)
    finally:
        go.set()
        writing.wait()


def test_memory_that_numpy_did_not_allocate_is_not_judged():
    buffer, opt = bytearray(80), RMSprop()
    for n in range(5):
        step(opt, *[np.frombuffer(buffer)[2 * k : 2 * k + 2] for k in range(n + 1)])
    assert len(opt.get_weights()) == 6


def test_memory_that_a_file_maps_is_not_judged(tmp_path):
    path, opt = tmp_path / "w.npy", RMSprop()
    np.save(path, np.zeros((5, 2)))
    for n in range(5):
        step(opt, *[np.load(path, mmap_mode="r+")[k] for k in range(n + 1)])


def test_threads_that_share_an_optimizer_see_no_false_alarm():
    opt, start = RMSprop(0.01), threading.Barrier(8)
    arrays = [np.ones((3, 2)) for _ in range(8)]

    def work(k):
        start.wait()
        for n in range(50):
            step(opt, arrays[k][n % 3])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert int(opt.iterations) == 400
    assert len(opt.get_weights()) == 25


def test_threads_with_optimizers_that_share_arrays_do_not_wait_for_each_other():
    shared, start, errors = np.ones(3), threading.Barrier(4), []

    def work(_):
        opt, held = RMSprop(0.01), []
        step(opt, shared)
        start.wait()
        for _ in range(30):
            held.append(np.ones(3))
            step(opt, shared, *held)
        x = np.ones(2)
        step(opt, x)
        x = x * 2
        try:
            step(opt, x)
        except ValueError as error:
            errors.append(error)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(errors) == 4


@pytest.mark.gpu
def test_variables_of_captured_steps_are_held():
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    opt, x = RMSprop(), cupy.ones(3)
    opt.build([x])
    gradient, stream = cupy.ones(3), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        opt.apply_gradients([(gradient, x)])
        stream.end_capture()
    x = x * 2
    opt.forget()
    assert len(opt.get_weights()) == 2
    for change in (lambda: opt.rebind([x]), lambda: opt.forget([x])):
        with pytest.raises(RuntimeError, match="discard_captured"):
            change()
    opt.discard_captured()
    opt.rebind([x])
    assert step(opt, x) == 1
