"""Other variables for the same state: `rebind`, `forget`, copies, pickles."""

import copy
import io
import os
import pickle
import tempfile

import numpy as np
import pytest

from rmsprop import RMSprop, Variable
from rmsprop.checkpoints import CheckpointError
from rmsprop.state import recognition

REPLACED = "held by nobody any more"
IN_USE = "the copy is in use"


def step(opt, *variables):
    """Take a step with gradients of ones."""
    return opt.apply_gradients([((v.array if isinstance(v, Variable) else v) * 0 + 1, v) for v in variables])


def state(opt):
    return [w.tobytes() for w in opt.get_weights()]


def trained(xp, steps=3, **settings):
    """Return an optimizer and two arrays of one kind."""
    opt, a, b = RMSprop(0.1, momentum=0.9, **settings), xp.ones((2, 3)), 2 * xp.ones((2, 3))
    for n in range(steps):
        opt.apply_gradients([(a * (n + 1), a), (b - n, b)])
    return opt, a, b


def test_to_add_a_view_lets_no_other_view_of_the_same_array_go(xp, monkeypatch):
    opt, whole = RMSprop(0.1), xp.ones((3, 4))
    step(opt, whole[0])

    def fail(*_):
        raise AssertionError("let go, though the new view holds the array")

    monkeypatch.setattr(recognition, "release", fail)
    step(opt, whole[1])
    step(opt, whole[2])
    assert len(opt.get_weights()) == 1 + 3
    with pytest.raises(AssertionError, match="let go"):
        step(opt, xp.ones(4))


def test_a_loop_that_rebinds_goes_as_one_in_place(xp):
    x, y, opt, other = xp.ones(4), xp.ones(4), RMSprop(0.3, momentum=0.5), RMSprop(0.3, momentum=0.5)
    for _ in range(10):
        opt.apply_gradients([(2 * x - 1, x)])
        x = xp.maximum(x, 0)
        opt.rebind([x])
        other.apply_gradients([(2 * y - 1, y)])
        xp.maximum(y, 0, out=y)
    assert (x == y).all()
    assert state(opt) == state(other)


def test_rebind_takes_variables_in_the_order_in_which_they_became_known(xp):
    opt, a, b = trained(xp)
    rms = [opt.get_slot(v, "rms").numpy() for v in (a, b)]
    c, d = a.copy(), Variable(b)
    opt.rebind({"1": c, "2": (v for v in [d])})
    for variable, expected in zip((c, d), rms, strict=True):
        np.testing.assert_array_equal(opt.get_slot(variable, "rms").numpy(), expected)
    with pytest.raises(KeyError):
        opt.get_slot(a, "rms")
    opt.rebind([d, c])
    np.testing.assert_array_equal(opt.get_slot(d, "rms").numpy(), rms[0])
    step(opt, c, d)
    assert len(opt.get_weights()) == 5


BAD = [
    (lambda a, b: [a], ValueError, "all 2 variables that are known; given 1"),
    (lambda a, b: [a, b, b.copy()], ValueError, "given 3"),
    (lambda a, b: [a, b[0]], ValueError, r"Variable 1 can't be .*\(3,\)\); expected one like .*\(2, 3\)"),
    (lambda a, b: [a.astype("float32"), b], ValueError, "Variable 0 can't be .*float32"),
    (lambda a, b: [a, a], ValueError, "Variable 1 .* is the same as variable 0"),
    (lambda a, b: [a, a[::-1]], ValueError, "share memory"),
    (lambda a, b: [a, "b"], TypeError, "Variable 1 .*expected an array"),
    (lambda a, b: [a, (b > 0)], TypeError, "Variable 1 .*bool"),
]


@pytest.mark.parametrize(("given", "error", "message"), BAD)
def test_bad_variables_for_rebind_change_nothing(xp, given, error, message):
    opt, a, b = trained(xp)
    before = state(opt)
    with pytest.raises(error, match=message):
        opt.rebind(given(a, b))
    assert state(opt) == before
    step(opt, a, b)
    assert len(opt.get_weights()) == 5


def test_rebind_refuses_read_only_arrays_and_other_libraries():
    opt, a, b = trained(np)
    a.flags.writeable = False
    with pytest.raises(ValueError, match="Variable 0 .*read-only"):
        opt.rebind([a, b])
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(ValueError, match="Variable 0 can't be"):
        opt.rebind([Variable(strict.ones((2, 3))), b])


def test_rebind_refuses_another_device():
    xp = pytest.importorskip("array_api_strict")
    there = xp.Device("device1")
    opt, v = RMSprop(), Variable(xp.ones(3))
    step(opt, v)
    with pytest.raises(ValueError, match=r"Variable 0 .*device1.*expected"):
        opt.rebind([Variable.around(xp.ones(3, device=there))])


def test_rebind_and_forget_wait_for_loaded_state_and_steps():
    opt, a, b = trained(np)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "state.safetensors")
        opt.save(path)
        loaded = RMSprop.load(path)
    with pytest.raises(RuntimeError, match="build"):
        loaded.rebind([a, b])
    loaded.forget()
    loaded.build([a, b])
    assert state(loaded) == state(opt)
    opt.learning_rate = lambda: opt.rebind([a, b]) or 0.1
    with pytest.raises(RuntimeError, match="under way"):
        step(opt, a, b)
    opt.learning_rate = lambda: opt.forget() or 0.1
    with pytest.raises(RuntimeError, match="under way"):
        step(opt, a, b)


def test_forget_drops_the_state_of_the_variables_it_is_given(xp):
    opt, a, b = trained(xp, centered=True)
    kept = opt.get_slot(b, "mg").numpy()
    opt.forget([a])
    assert len(opt.get_weights()) == 4
    assert opt.get_slot_names() == ["rms", "momentum", "mg"]
    with pytest.raises(KeyError):
        opt.get_slot(a, "rms")
    with pytest.raises(ValueError, match=r"Variable 1 .* is not known"):
        opt.forget([b, a])
    np.testing.assert_array_equal(opt.get_slot(b, "mg").numpy(), kept)
    step(opt, a, b)
    assert len(opt.get_weights()) == 7
    opt.forget(iter([a, b]))
    assert len(opt.get_weights()) == 1
    assert opt.get_slot_names() == []
    opt.iterations = 7
    assert step(opt, a) == 8


def test_forget_drops_all_that_nobody_else_holds(xp):
    opt, a, b = trained(xp)
    opt.forget()
    assert len(opt.get_weights()) == 5
    step(opt, Variable(xp.ones(7)))
    del a
    opt.forget()
    assert [w.shape for w in opt.get_weights()] == [(), (2, 3), (2, 3)]
    step(opt, b)


def test_a_new_array_for_each_frame_on_purpose(xp):
    opt = RMSprop(0.1)
    for frame in (1.0, 2.0, 3.0):
        x, expected = xp.zeros(2), xp.zeros(2)
        opt.forget()
        fresh = RMSprop(0.1)
        for _ in range(5):
            opt.apply_gradients([(x - frame, x)])
            fresh.apply_gradients([(expected - frame, expected)])
        assert (x == expected).all()
    assert len(opt.get_weights()) == 2
    assert int(opt.iterations) == 15


def test_forget_after_the_error_begins_anew(xp):
    opt, x = RMSprop(0.1), xp.ones(3)
    step(opt, x)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)
    opt.forget()
    assert len(opt.get_weights()) == 1
    assert step(opt, x) == 2


def test_weights_settings_and_new_slots_work_after_the_error():
    opt, x, other = RMSprop(0.1), np.ones(3), np.ones(4)
    step(opt, x, other)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x, other)
    opt.set_weights([w + 1 for w in opt.get_weights()])
    opt.centered = True
    step(opt, other)
    opt.rebind([x, other])
    step(opt, x, other)
    assert len(opt.get_weights()) == 5


def test_files_are_refused_after_the_error_until_rebind(tmp_path):
    path, opt, x = tmp_path / "x.safetensors", RMSprop(0.1), np.ones(3)
    step(opt, x)
    opt.save(path, {"x": x})
    saved = state(opt)
    x = x * 2
    for _ in range(2):
        with pytest.raises(ValueError, match=REPLACED):
            opt.restore(path, {"x": x})
        assert (x != 1).all()
        for variables in (None, {"x": x}):
            with pytest.raises(ValueError, match="rebind or forget"):
                opt.save(path, variables)
    opt.rebind([x])
    step(opt, x)
    opt.restore(path, {"x": x})
    assert state(opt) == saved
    opt.forget([x])
    opt.restore(path, {"x": x})
    assert state(opt) == saved


def test_restoring_a_file_with_fewer_variables_still_names_what_is_missing(tmp_path):
    path, opt, x, y = tmp_path / "x.safetensors", RMSprop(0.1), np.ones(3), np.ones(4)
    step(opt, x)
    opt.save(path, {"x": x})
    step(opt, y)
    with pytest.raises(CheckpointError, match="is not there"):
        opt.restore(path, {"x": x})


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_optimizer_pickled_apart_from_its_arrays_is_refused_until_rebind(xp, protocol):
    opt, a, b = trained(xp)
    twin = pickle.loads(pickle.dumps(opt, protocol))
    c, d = (pickle.loads(pickle.dumps(v, protocol)) for v in (a, b))
    for variables in ((c, d), (a, b)):
        with pytest.raises(ValueError, match=REPLACED):
            step(twin, *variables)
    again = pickle.loads(pickle.dumps(twin, protocol))
    again.rebind([c, d])
    step(opt, a, b)
    step(again, c, d)
    assert state(again) == state(opt)
    assert (c == a).all()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_optimizer_pickled_together_with_its_arrays_knows_them(xp, protocol):
    opt, a, b = trained(xp)
    twin, c, d = pickle.loads(pickle.dumps((opt, a, b), protocol))
    e = c * 2
    step(twin, c, d)
    with pytest.raises(ValueError, match="share memory|same as"):
        step(twin, c, c[::-1])
    step(twin, c, d, e)
    assert len(twin.get_weights()) == 7


def test_identities_that_joblib_loses_are_noticed():
    joblib = pytest.importorskip("joblib")
    opt, a, b = trained(np)
    file = io.BytesIO()
    joblib.dump((opt, a, b), file)
    file.seek(0)
    twin, c, d = joblib.load(file)
    before = state(twin)
    with pytest.raises(ValueError, match=REPLACED):
        step(twin, c, d)
    assert state(twin) == before
    twin.rebind([c, d])
    step(twin, c, d)
    step(opt, a, b)
    assert state(twin) == state(opt)


class Model:
    """Copies what it consists of by itself."""

    def __init__(self, xp, kind=lambda array: array):
        self.w = kind(xp.ones(2))
        self.opt = RMSprop(0.1)
        step(self.opt, self.w)

    def __deepcopy__(self, memo):
        new = Model.__new__(Model)
        new.opt = copy.deepcopy(self.opt, memo)
        new.w = copy.deepcopy(self.w, memo)
        return new


@pytest.mark.parametrize("kind", [lambda array: array, Variable])
def test_a_copy_shares_no_arrays_with_the_original_whoever_calls(xp, kind):
    a = Model(xp, kind)
    b = copy.deepcopy(a)
    assert b.w is not a.w
    step(b.opt, b.w)
    assert len(b.opt.get_weights()) == 2
    before, w = state(a.opt), a.w if kind is Variable else a.w.copy()
    step(b.opt, b.w)
    assert state(a.opt) == before
    if kind is not Variable:
        assert (a.w == w).all()
    with pytest.raises(ValueError, match=IN_USE):
        step(b.opt, a.w)
    with pytest.raises(ValueError, match=IN_USE):
        b.opt.get_slot(a.w, "rms")
    assert len(b.opt.get_weights()) == 2


@pytest.mark.parametrize("kind", [lambda array: array, Variable])
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_copy_alone_goes_on_with_the_originals(xp, kind, copies):
    v, opt = kind(xp.ones(2)), RMSprop(0.1)
    step(opt, v)
    twin = opt
    for _ in range(copies):
        twin = copy.deepcopy(twin)
    step(twin, v)
    assert len(twin.get_weights()) == 2
    assert int(opt.iterations) == 1
    again = copy.deepcopy(twin)
    assert (again.get_slot(v, "rms").numpy() == twin.get_slot(v, "rms").numpy()).all()
    step(opt, v)
    assert state(opt) == state(twin)
    for optimizer in (opt, twin, again):
        step(optimizer, v)
        assert len(optimizer.get_weights()) == 2


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("container", [tuple, list, lambda pair: dict(enumerate(pair))])
@pytest.mark.parametrize("taken", [lambda w: w, lambda w: w[0], lambda w: w.T[1:], lambda w: w[:, ::-1]])
def test_copies_in_a_container_belong_together_views_included(xp, container, order, taken):
    w, opt = xp.ones((3, 4)), RMSprop(0.1)
    step(opt, taken(w))
    copied = copy.deepcopy(container((opt, w) if order else (w, opt)))
    items = list(copied.values()) if isinstance(copied, dict) else list(copied)
    twin, u = items if order else items[::-1]
    assert u is not w
    step(twin, taken(u))
    assert len(twin.get_weights()) == 2
    before = w.copy()
    step(twin, taken(u))
    assert (w == before).all()
    step(opt, taken(w))
    step(opt, taken(w))
    assert (u == w).all()
    assert state(opt) == state(twin)


def test_a_copy_alone_goes_on_with_views_taken_anew(xp):
    w, opt = xp.ones((3, 4)), RMSprop(0.1)
    step(opt, w[0], w[1])
    twin = copy.deepcopy(copy.deepcopy(opt))
    for _ in range(2):
        step(twin, w[0], w[1])
    assert len(twin.get_weights()) == 3
    assert (w[2] == 1).all()


def test_a_view_that_is_held_is_copied_as_itself_or_as_a_view(xp):
    big = xp.ones((3, 4))
    v, opt = big[1], RMSprop(0.1)
    step(opt, v)
    for twin, u in (copy.deepcopy((opt, v)), copy.deepcopy([v, opt])[::-1]):
        step(twin, u)
        assert len(twin.get_weights()) == 2
    assert (big[0] == 1).all()


def test_a_copy_of_an_optimizer_without_its_arrays_is_refused_until_rebind(xp):
    opt, a, b = trained(xp)
    twin, c, d = copy.deepcopy(opt), a.copy(), b.copy()
    for _ in range(2):
        with pytest.raises(ValueError, match=REPLACED):
            step(twin, c, d)
    twin.rebind([c, d])
    step(twin, c, d)
    step(opt, a, b)
    assert state(twin) == state(opt)


def test_a_copy_made_after_the_error_is_still_to_be_rebound(xp):
    opt, x = RMSprop(), xp.ones(3)
    step(opt, x)
    x = x * 2
    with pytest.raises(ValueError, match=REPLACED):
        step(opt, x)
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        with pytest.raises(ValueError, match=REPLACED):
            step(twin, x)
        twin.rebind([x])
        assert step(twin, x) == 2


def test_the_memory_of_a_copy_is_let_go_when_the_original_takes_its_place(xp):
    opt, x = RMSprop(), xp.ones(1000)
    step(opt, x)
    twin = copy.deepcopy(opt)
    (parameter,) = twin._state.parameters
    assert parameter.key is not x
    step(twin, x)
    assert parameter.key is x


def test_a_shallow_copy_is_refused():
    with pytest.raises(TypeError, match=r"copy\.deepcopy"):
        copy.copy(RMSprop())


ONES = [
    lambda w: w[0][None],
    lambda w: w[None, 0],
    lambda w: w[:1].reshape(1, 8),
    lambda w: w.T[:, :1].T,
    lambda w: w[0:8:8],
]


@pytest.mark.parametrize("state_dtype", [None, "bfloat16"])
def test_views_that_differ_in_the_stride_of_an_axis_of_length_1_are_the_same_variable(xp, state_dtype):
    w, opt = xp.ones((8, 8)), RMSprop(state_dtype=state_dtype)
    assert len({view(w).strides for view in ONES}) > 1
    for view in ONES * 2:
        step(opt, view(w))
    assert len(opt.get_weights()) == 2
    twin = copy.deepcopy(opt)
    for view in ONES:
        step(twin, view(w))
    assert len(twin.get_weights()) == 2
    empty = xp.ones((0, 3))
    for view in (empty, empty[:, :], empty[::2]):
        step(opt, view)
    assert len(opt.get_weights()) == 3


@pytest.mark.parametrize(
    "settings", [{}, {"clipnorm": 1.0}, {"state_dtype": "bfloat16"}, {"state_dtype": "uint8"}]
)
def test_memory_that_resize_moved_is_no_longer_that_of_the_variable(settings):
    opt, x = RMSprop(0.1, **settings), np.ones(100_000)
    address = x.ctypes.data
    step(opt, x)
    for size in (10_000_000, 100_000):
        x.resize(size, refcheck=False)
        held = [np.ones(100_000) for _ in range(50)]
    if x.ctypes.data == address:
        pytest.skip("the memory happens to be the same")
    before = x.copy()
    with pytest.raises(ValueError, match="moved"):
        step(opt, x)
    for y in [y for y in held if y.ctypes.data == address]:  # if it is used again
        step(opt, y)
        assert (y < 1).all()
    assert (x == before).all()


@pytest.mark.parametrize("settings", [{}, {"state_dtype": "bfloat16"}])
def test_an_array_where_another_one_was_is_a_new_one(settings):
    opt, block = RMSprop(0.1, **settings), np.ones(20)
    x = np.ones(3)
    step(opt, x)
    (parameter,) = opt._state.parameters
    parameter._address += 8  # as if x had been elsewhere, which can't be forced
    opt._state.parameters._by_memory = {parameter.backend.memory(block[:3]): parameter}
    y = block[:3]
    step(opt, y)
    assert (block[:3] < 1).all()
    assert (block[3:] == 1).all()
    assert opt.get_slot(y, "rms") is not opt.weights[1]
    assert len(opt.get_weights()) == 3
