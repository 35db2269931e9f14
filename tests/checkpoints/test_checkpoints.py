"""Saving, loading and restoring optimizers: what comes back, and what is refused."""

import copy
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import rmsprop
from rmsprop import CheckpointError, RMSprop, Variable, schedules

DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "complex64", "complex128"]
PROGRAM = Path(__file__).parent / "programs" / "resumed.py"
DATA = Path(__file__).parents[1] / "data"


class Halving(schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate * 0.5 ** (float(step) / 50)

    def get_config(self):
        return {"rate": self.rate}


program = runpy.run_path(PROGRAM)
drawn, bits, differences = program["drawn"], program["bits"], program["differences"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def stepped(**settings):
    opt, w = RMSprop(0.1, **settings), np.arange(12.0).reshape(4, 3)
    opt.apply_gradients([(w - 1, w)])
    return opt, w


# What comes back

VARIANTS = {
    "schedule": {
        "learning_rate": schedules.CosineDecay(0.1, 100),
        "momentum": 0.9,
        "centered": True,
        "clipnorm": 3.0,
    },
    "8 bits": {"state_dtype": "uint8", "momentum": 0.5},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("way", ["restore", "load"])
def test_resumed_training_equals_uninterrupted_training_to_the_bit(variant, way, path):
    assert differences(VARIANTS[variant], way, path, lambda: [np.ones((5, 70), np.float32)], 40) == []


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)])
@pytest.mark.parametrize("complex_as_real", [False, True])
def test_every_dtype_and_shape_comes_back_to_the_bit(dtype, shape, complex_as_real, path):
    settings = {"momentum": 0.9, "centered": True, "complex_as_real": complex_as_real}
    opt, w = RMSprop(**settings), drawn(1, np.empty(shape, dtype))
    opt.build([w])
    slots = [drawn(i, slot.array) for i, slot in enumerate(opt.weights[1:])]
    slots[0].real = np.abs(slots[0].real)
    if slots[0].dtype.kind == "c":
        slots[0].imag = np.abs(slots[0].imag)
    opt.set_weights([np.array(7), *slots])
    opt.save(path, [w])
    again, v = RMSprop(**settings), np.zeros_like(w)
    again.restore(path, [v])
    assert bits(again, [v]) == bits(opt, [w])
    assert bits(RMSprop.load(path), []) == bits(opt, [])


LAYOUTS = {
    "strided": lambda: np.zeros((8, 9))[::2, ::3],
    "negative": lambda: np.zeros((4, 3))[::-1, ::-1],
    "fortran": lambda: np.zeros((4, 3), order="F"),
    "transposed": lambda: np.zeros((3, 4)).T,
    "unaligned": lambda: np.zeros(8 * 12 + 1, np.uint8)[1:].view(np.float64).reshape(4, 3),
    "readable": lambda: np.zeros((4, 3)),
}


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize("after", LAYOUTS)
def test_values_are_the_same_whatever_the_layout_of_arrays(before, after, path):
    w, v = LAYOUTS[before](), LAYOUTS[after]()
    w[...] = np.arange(12.0).reshape(4, 3)
    opt, again = RMSprop(), RMSprop()
    opt.apply_gradients([(w.copy(), w)])
    opt.save(path, [w])
    again.restore(path, [v])
    assert bits(again, [v]) == bits(opt, [w])


def test_nan_infinity_and_the_sign_of_zero_come_back_to_the_bit(path):
    w = np.array([0x7FF8DEAD00000000, 0xFFF0000000000000, 0x8000000000000000, 1], np.uint64).view(np.float64)
    RMSprop().save(path, {"w": w})
    v = np.zeros(4)
    RMSprop().restore(path, {"w": v})
    assert v.tobytes() == w.tobytes()


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint16", "int64", "longdouble", "clongdouble", "float8_e5m2", ">f4"]
)
def test_variables_that_are_not_optimised_are_saved_whatever_their_dtype(dtype, path):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    w, v = np.array([[0, 1], [1, 0]]).astype(dtype), np.ones((2, 2), dtype)
    RMSprop().save(path, {"counts": w})
    RMSprop().restore(path, {"counts": v})
    assert (v == w).all()


def test_arrays_of_other_libraries_come_back(path):
    xp = pytest.importorskip("array_api_strict")
    a, b = Variable(xp.ones(3), name="a"), Variable(xp.zeros((2, 2)), name="b")
    opt = RMSprop(momentum=0.5)
    opt.apply_gradients([(xp.ones(3), a), (xp.ones((2, 2)), b)])
    opt.save(path, [a, b])
    c, d = Variable(xp.zeros(3), name="a"), Variable(xp.zeros((2, 2)), name="b")
    again = RMSprop(momentum=0.5)
    again.restore(path, [d, c])  # by name
    assert bits(again, [c, d]) == bits(opt, [a, b])
    assert type(again.get_slot(c, "rms").array) is type(c.array)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_bfloat16_of_torch_and_jax_comes_back(library, path):
    xp = pytest.importorskip({"torch": "torch", "jax": "jax.numpy"}[library])
    v = Variable(xp.asarray([1.0, -2.5, 3e30], dtype=xp.bfloat16), name="v")
    opt = RMSprop(momentum=0.5)
    opt.apply_gradients([(xp.asarray([1.0, 2.0, 3.0], dtype=xp.bfloat16), v)])
    opt.save(path, [v])
    w, again = Variable(xp.zeros(3, dtype=xp.bfloat16), name="v"), RMSprop(momentum=0.5)
    again.restore(path, [w])
    assert bits(again, [w]) == bits(opt, [v])
    assert w.dtype == xp.bfloat16


def test_restoring_into_a_trained_optimizer_goes_back_in_place(path):
    opt, w = stepped(momentum=0.9)
    opt.save(path, [w])
    before, array = bits(opt, [w]), opt.get_slot(w, "rms").array
    opt.apply_gradients([(w, w)])
    opt.restore(path, [w])
    assert bits(opt, [w]) == before
    assert opt.get_slot(w, "rms").array is array


def test_slots_that_came_later_are_zero_again(path):
    opt, w = stepped()
    opt.save(path, [w])
    opt.momentum = 0.5
    opt.apply_gradients([(w, w)])
    opt.momentum = 0.0
    opt.restore(path, [w])
    assert not opt.get_slot(w, "momentum").numpy().any()
    reference, v = RMSprop(0.1), np.zeros((4, 3))
    reference.restore(path, [v])
    for o, x in ((opt, w), (reference, v)):
        o.apply_gradients([(np.ones((4, 3)), x)])
    assert w.tobytes() == v.tobytes()


def test_slots_of_your_own_and_their_order_come_back(path):
    opt, w = RMSprop(momentum=0.9), np.ones(3)
    opt.add_slot(w, "a/ä", "ones", shape=(2,))
    opt.apply_gradients([(w, w)])
    opt.save(path, [w])
    for again in (RMSprop(momentum=0.9), RMSprop.load(path)):
        v = np.zeros(3)
        again.restore(path, [v])
        assert again.get_slot_names() == ["a/ä", "rms", "momentum"]
        assert bits(again, [v]) == bits(opt, [w])


def test_a_momentum_that_was_set_to_zero_still_counts(path):
    opt, w = stepped(momentum=0.9)
    opt.momentum = 0.0
    opt.save(path, [w])
    again, v = RMSprop.load(path), w.copy()
    again.build([v])
    for o, x in ((opt, w), (again, v)):
        o.apply_gradients([(np.ones((4, 3)), x)])
    assert bits(again, [v]) == bits(opt, [w])


def test_state_alone_can_be_saved(path):
    opt, _ = stepped()
    opt.save(path)
    v = np.full((4, 3), 7.0)
    again = RMSprop(0.1)
    again.restore(path, [v])
    assert (v == 7).all()
    assert bits(again, []) == bits(opt, [])


def test_variables_without_state_are_saved_by_name(path):
    opt, w = stepped()
    frozen = Variable([1.0, 2.0], name="frozen")
    opt.save(path, {"layers": [w, frozen], "mean": np.array(3)})
    v, also, mean = np.zeros((4, 3)), Variable([0.0, 0.0], name="frozen"), np.array(0)
    again = RMSprop(0.1)
    again.restore(path, {"mean": mean, "layers": (v, also)})
    assert (also.numpy() == [1, 2]).all()
    assert mean == 3
    assert len(again.weights) == 2


def test_what_was_loaded_can_be_read_copied_and_pickled_before_it_has_variables(path):
    opt, w = RMSprop(state_dtype="uint8", momentum=0.5), np.ones((4, 3), np.float32)
    opt.build([w])
    opt.set_weights([np.array(1), np.full((4, 3), 0.5), np.full((4, 3), -2.0)])
    opt.save(path)
    for again in (
        RMSprop.load(path),
        copy.deepcopy(RMSprop.load(path)),
        pickle.loads(pickle.dumps(RMSprop.load(path))),
    ):
        assert bits(again, []) == bits(opt, [])
        assert again.get_slot_names() == ["rms", "momentum"]
        assert again.iterations == 1
        again.build([w])
        assert bits(again, []) == bits(opt, [])
        assert (again.get_slot(w, "momentum").numpy() == -2).all()


def test_what_was_loaded_goes_to_the_variables_of_the_first_step(path):
    opt, w = stepped()
    v = w.copy()
    opt.save(path)
    again = RMSprop.load(path)
    for o, x in ((opt, w), (again, v)):
        o.apply_gradients([(np.ones((4, 3)), x)])
    assert bits(again, [v]) == bits(opt, [w])


def test_a_loaded_state_can_be_claimed_by_what_yields_variables(path):
    opt, w = stepped()
    opt.save(path, [w])
    again = RMSprop.load(path)
    again.build(iter([w]))
    assert bits(again, [w]) == bits(opt, [w])


def test_what_was_loaded_does_not_go_to_other_variables(path):
    opt, w = stepped()
    opt.save(path, {"w": w})
    again = RMSprop.load(path)
    before = bits(again, [])
    for bad in ([w], {"w": np.ones(3)}, {"w": w, "x": np.ones(2)}, {"w": w.astype(np.float32)}):
        with pytest.raises(CheckpointError):
            again.build(bad)
    for refused in (lambda: again.add_slot(w, "rms"), lambda: again.save(path)):
        with pytest.raises(RuntimeError, match=r"build\(var_list\)"):
            refused()
    v = w.copy()
    with pytest.raises(CheckpointError, match="still waits for its variables"):
        again.apply_gradients([(v, v)])
    assert (v == w).all()
    assert bits(again, []) == before
    again.build({"w": v})
    assert bits(again, []) == before


def test_schedules_of_your_own_are_loaded_by_name(path):
    opt, w = RMSprop(Halving(0.1)), np.ones(3)
    opt.apply_gradients([(w, w)])
    opt.save(path, [w])
    again = RMSprop.load(path, custom_objects={"Halving": Halving})
    assert again.current_learning_rate == opt.current_learning_rate == Halving(0.1)(1)
    with pytest.raises(CheckpointError, match="unknown schedule class 'Halving'"):
        RMSprop.load(path)


CODE = {
    "learning_rate": lambda: 0.1,
    "momentum": lambda: 0.5,
    "gradient_aggregator": lambda pairs: pairs,
    "gradient_transformers": [lambda pairs: pairs],
}


@pytest.mark.parametrize("name", CODE)
def test_code_is_not_saved_but_the_rest_can_be_restored(name, path):
    opt, w = RMSprop(**{name: CODE[name]}), np.ones(3)
    opt.apply_gradients([(w, w)])
    opt.save(path, [w])
    with pytest.raises(CheckpointError, match=f"{name} was a callable, which is code"):
        RMSprop.load(path)
    v = np.zeros(3)
    with pytest.raises(CheckpointError, match=name):
        RMSprop().restore(path, [v])
    again = RMSprop(**{name: CODE[name]})
    again.restore(path, [v])
    assert bits(again, [v]) == bits(opt, [w])


def test_saving_calls_no_callable(path):
    rates = iter([0.1, 0.2])
    opt, w = RMSprop(lambda: next(rates)), np.ones(3)
    opt.apply_gradients([(w, w)])
    opt.save(path, [w])
    assert next(rates) == 0.2


# What is refused

MISFITS = [
    ({}, lambda: {"v": np.zeros((4, 3))}, "'w' is in the checkpoint, but is not given"),
    ({}, lambda: {"w": np.zeros((4, 3)), "v": np.zeros(1)}, "'v' is given, but is not in the checkpoint"),
    ({}, lambda: {"w": np.zeros((3, 4))}, r"'w' has dtype float64 and shape \(4, 3\) there; given .*\(3, 4\)"),
    ({}, lambda: {"w": np.zeros((4, 3), np.float32)}, "float64 .*; given one of dtype float32"),
    ({"learning_rate": 0.2}, lambda: {"w": np.zeros((4, 3))}, "learning_rate is 0.1 there, but 0.2"),
    ({"momentum": 0.9}, lambda: {"w": np.zeros((4, 3))}, "momentum is 0.0 there, but 0.9"),
    ({"centered": True}, lambda: {"w": np.zeros((4, 3))}, "centered is False there, but True"),
    ({"clipnorm": 1.0}, lambda: {"w": np.zeros((4, 3))}, "clipnorm is None there, but 1.0"),
    ({"name": "other"}, lambda: {"w": np.zeros((4, 3))}, "name is 'RMSprop' there, but 'other'"),
    ({"state_dtype": "uint8"}, lambda: {"w": np.zeros((4, 3))}, "state_dtype is None there, but 'uint8'"),
    ({}, lambda: {"w": RMSprop}, "expected an array that is updated in place"),
    ({}, lambda: {"w": np.broadcast_to(np.zeros(3), (4, 3))}, "read-only"),
]


@pytest.mark.parametrize(("settings", "variables", "message"), MISFITS)
def test_what_does_not_fit_changes_nothing(settings, variables, message, path):
    stepped_one, w = stepped()
    stepped_one.save(path, {"w": w})
    again, given, other = RMSprop(**{"learning_rate": 0.1, **settings}), variables(), np.ones(3)
    with pytest.raises((CheckpointError, TypeError, ValueError), match=message):
        again.restore(path, given)
    assert len(again.weights) == 1
    assert again.iterations == 0
    assert not any(np.any(v) for v in given.values() if isinstance(v, np.ndarray))
    again.apply_gradients([(other, other)])


def test_an_optimizer_with_state_of_another_variable_is_left_as_it_is(path):
    opt, w = stepped()
    opt.save(path, [w])
    other = np.ones(2)
    opt.apply_gradients([(other, other), (w, w)])
    before = bits(opt, [w, other])
    with pytest.raises(
        CheckpointError, match=r"float64, shape \(2,\)\), of which the optimizer has state, is not there"
    ):
        opt.restore(path, [w])
    assert bits(opt, [w, other]) == before


def test_a_failure_at_the_last_variable_leaves_the_first_as_it_was(path):
    a, b = np.ones(3), np.ones(2)
    opt = RMSprop()
    opt.apply_gradients([(a, a), (b, b)])
    opt.save(path, [a, b])
    c, d = np.zeros(3), np.zeros(2)
    d.flags.writeable = False
    again = RMSprop()
    with pytest.raises(ValueError, match="read-only"):
        again.restore(path, [c, d])
    assert not c.any()
    assert len(again.weights) == 1


class Full(Variable):
    """A variable on a device that is full."""

    def assign(self, value):
        raise MemoryError


def test_a_device_that_fails_in_the_middle_leaves_all_as_it_was(path):
    xp = pytest.importorskip("array_api_strict")
    a, b = np.ones(3), Variable(xp.ones(3), name="b")
    RMSprop().save(path, [a, b])
    c, d, opt = np.zeros(3), Full(xp.zeros(3), name="b"), RMSprop()
    with pytest.raises(MemoryError):
        opt.restore(path, [c, d])
    assert not c.any()
    assert opt.iterations == 0


def test_saving_refuses_variables_that_would_not_come_back(path):
    opt, w = stepped()
    v = np.ones(2)
    opt.apply_gradients([(v, v), (w, w)])
    for bad, message in (
        ([w], r"missing \(float64, shape \(2,\)\)"),
        ([w, v, w], "Variable '2' is the same as variable '0'"),
        ([w, v, "x"], "expected an array"),
        ([w, v, 1.0], "expected an array"),
        ({"w": w, "\ud800": v}, "can't be saved"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            opt.save(path, bad)
    with pytest.raises(TypeError, match="no dtype of numbers"):
        opt.save(path, [w, v, np.array(["a"])])
    assert not path.exists()


def test_variables_of_one_name_are_numbered(path):
    a, b = Variable([1.0]), Variable([2.0])
    RMSprop().save(path, [a, b])
    c, d = Variable([0.0]), Variable([0.0])
    RMSprop().restore(path, [c, d])
    assert (c.numpy(), d.numpy()) == (1, 2)


# Files of earlier versions


def recorded():
    """Return the optimizer and the variables that are in the recorded files."""
    schedule = schedules.ExponentialDecay(0.1, 100, 0.5)
    opt = RMSprop(schedule, rho=0.95, momentum=0.5, centered=True, clipnorm=2.0, name="recorded")
    half = (np.arange(5) / 4).astype(np.float16)
    z = np.arange(6).reshape(2, 3) * (1 + 0.5j)
    named = Variable(np.array([1.5, -2.0], ml_dtypes.bfloat16), name="named")
    variables = {"half": half, "group": [z, named], "frozen": np.arange(3)}
    opt.build([half, z, named])
    weights = [w.numpy() for w in opt.weights]
    opt.set_weights(
        [np.array(123), *[np.full(w.shape, 0.25 * i + 0.5, w.dtype) for i, w in enumerate(weights[1:])]]
    )
    return opt, variables


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_each_version_load(version):
    file = DATA / f"checkpoint-version-{version}.safetensors"
    opt, variables = recorded()
    again = RMSprop.load(file)
    assert again.get_config() == opt.get_config()
    assert bits(again, []) == bits(opt, [])
    zeros = {
        "half": np.zeros(5, np.float16),
        "group": [np.zeros((2, 3), complex), Variable(np.zeros(2, ml_dtypes.bfloat16), name="named")],
        "frozen": np.zeros(3, int),
    }
    again.restore(file, zeros)
    for a, b in zip(
        [zeros["half"], *zeros["group"], zeros["frozen"]],
        [variables["half"], *variables["group"], variables["frozen"]],
        strict=True,
    ):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert bits(again, []) == bits(opt, [])


def test_the_recorded_file_is_what_is_written_today(path):
    opt, variables = recorded()
    opt.save(path, variables)
    assert path.read_bytes() == (DATA / "checkpoint-version-2.safetensors").read_bytes()


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "complex128"])
@pytest.mark.parametrize("wait", [True, False])
def test_arrays_on_a_gpu_come_back(dtype, wait, path):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    w = cupy.arange(12).reshape(4, 3).astype(dtype)[::2, ::-1]
    settings = {"momentum": 0.9, "centered": True}
    opt = RMSprop(**settings)
    opt.apply_gradients([(w + 1, w)])
    saving = opt.save(path, [w], wait=wait)
    if saving is not None:
        saving.wait()
    for v in (cupy.zeros((2, 3), dtype), np.zeros((2, 3), dtype)):  # the file does not tell where arrays were
        again = RMSprop(**settings)
        again.restore(path, [v])
        assert v.tobytes() == np.ascontiguousarray(w.get()).tobytes()
        assert all((a == b).all() for a, b in zip(again.get_weights(), opt.get_weights(), strict=True))
        assert type(again.get_slot(v, "rms").array) is type(v)


@pytest.mark.gpu
@pytest.mark.parametrize("wait", [True, False])
def test_files_go_from_and_to_pinned_memory(wait, path):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    opt, w, empty = RMSprop(), cupy.arange(1_000_000, dtype=np.float32), cupy.zeros((0, 3))
    opt.build([w, empty])
    pool = cupy.get_default_pinned_memory_pool()

    def moves_by_pinned_memory(work):
        pool.free_all_blocks()
        work()
        cupy.cuda.get_current_stream().synchronize()
        return pool.n_free_blocks() > 0

    def save():
        saving = opt.save(path, [w, empty], wait=wait)
        if saving is not None:
            saving.wait()

    assert moves_by_pinned_memory(save)
    w[...] = 0
    assert moves_by_pinned_memory(lambda: opt.restore(path, [w, empty]))
    assert float(w[-1]) == w.size - 1


# Without more than is needed


def test_import_loads_nothing_for_checkpoints():
    code = "import rmsprop, sys; print([m for m in sys.modules if 'checkpoints' in m or m == 'safetensors'])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    )


def test_files_with_bfloat16_are_read_without_ml_dtypes():
    code = f"""
import sys
sys.modules["ml_dtypes"] = None
import numpy as np, rmsprop
opt = rmsprop.RMSprop.load({str(DATA / "checkpoint-version-2.safetensors")!r})
print(len(opt.get_weights()), int(opt.iterations))
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "10 123\n"
    )


def test_nothing_is_pickled():
    sources = Path(rmsprop.__file__).parent.joinpath("checkpoints").glob("*.py")
    assert not [
        s.name for s in sources if any(word in s.read_text() for word in ("pickle", "marshal", "eval(", "exec("))
    ]


def test_skipped_steps_and_the_loss_scale_come_back(path):
    def make():
        return RMSprop(0.01, nonfinite="skip", loss_scale=rmsprop.LossScale(1024.0, dynamic_growth_steps=3))

    opt, w = make(), np.ones(3)
    for gradient in (1.0, np.inf, 1.0, np.nan, 1.0, 1.0):
        opt.apply_gradients([(np.full(3, gradient), w)])
    opt.save(path, [w])
    again, v = make(), np.zeros(3)
    again.restore(path, [v])
    for other in (again, RMSprop.load(path)):
        assert (other.skipped, other.loss_scale.scale, other.loss_scale.dynamic_counter) == (2, 256.0, 2)
        assert other.iterations == 4
    for o, x in ((opt, w), (again, v)):
        o.apply_gradients([(np.ones(3), x)])
    assert bits(again, [v]) == bits(opt, [w])
    assert again.loss_scale.scale == 512
