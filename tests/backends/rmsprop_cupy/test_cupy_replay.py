"""Steps that repeat the one before on CuPy arrays: few calls in Python, and the same bits."""

import gc
import os
import sys
from contextlib import nullcontext
from weakref import ref

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, schedules

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
rmsprop_cupy = pytest.importorskip("rmsprop_cupy")
from rmsprop_cupy import replay  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]

CALLS = 20
CLIPPED = [
    {}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"nonfinite": "skip"},
    {"global_clipnorm": 1.0, "nonfinite": "skip"},
]  # fmt: skip


@pytest.fixture
def lazily():
    """Return what lets a simulator put off its work, which is in Python itself, and count what it is given."""
    gpusim = sys.modules.get("gpusim")
    return gpusim.deferred if gpusim else nullcontext


@pytest.fixture(autouse=True)
def errors_stay_in_their_test():
    yield
    cupy.cuda.Device().synchronize()


def drawn(kinds, seed):
    """Return arrays of dtypes and shapes."""
    rng = np.random.default_rng(seed)
    numbers = [(rng.standard_normal(shape), rng.standard_normal(shape), dtype) for dtype, shape in kinds]
    return [
        cupy.asarray(np.asarray(re + 1j * im if np.dtype(dtype).kind == "c" else re).astype(dtype))
        for re, im, dtype in numbers
    ]


def bits(arrays, optimizer):
    return [np.asarray(a.get()).tobytes() for a in arrays] + [w.tobytes() for w in optimizer.get_weights()]


def calls_of(function):
    """Return the names of all functions in Python that a call of one runs."""
    names = []
    sys.setprofile(lambda frame, event, arg: names.append(frame.f_code.co_name) if event == "call" else None)
    try:
        function()
    finally:
        sys.setprofile(None)
    return names


@pytest.mark.parametrize("count", [1, 300])
@pytest.mark.parametrize("settings", CLIPPED, ids=str)
@pytest.mark.parametrize("wrap", [cupy.asarray, Variable.around])
def test_a_steady_step_takes_at_most_20_calls_waits_for_nothing_and_copies_once(lazily, count, settings, wrap):
    kinds = [(np.float32, (1 + i % 3, 2)) for i in range(count)]
    variables = [wrap(a) for a in drawn(kinds, 0)]
    lists = [list(zip(drawn(kinds, seed), variables, strict=True)) for seed in (1, 2)]
    opt = RMSprop(0.01, **settings)
    for step in range(4):
        opt.apply_gradients(lists[step % 2])
    gpusim = sys.modules.get("gpusim")
    cupy.cuda.Device().synchronize()
    for given, copies in ((lists[0], 1), (lists[0], 0)):  # gradients elsewhere than in the step before, and there
        with lazily():
            if gpusim:
                gpusim.reset_counters()
            assert len(calls_of(lambda given=given: opt.apply_gradients(given))) <= CALLS
            counted = gpusim.counters() if gpusim else {}
        assert counted.get("memcpy_async_h2d", 0) <= copies
        assert not any(counted.get(name) for name in ("synchronisations", "mallocs", "host_mallocs"))
        assert counted.get("kernel_launches", 0) <= (3 if settings else 1)


def test_a_step_that_repeats_the_one_before_is_replayed(monkeypatch):
    kinds = [(np.float32, (3,)), (np.complex64, (2, 2)), (np.float32, ())]
    opt, variables = RMSprop(), drawn(kinds, 0)
    for seed in (1, 2):
        opt.apply_gradients(zip(drawn(kinds, seed), variables, strict=True))
    monkeypatch.setattr("rmsprop.step.gradients.pairs", lambda given: pytest.fail("checked in Python"))
    opt.apply_gradients(zip(drawn(kinds, 3), variables, strict=True))
    assert int(opt.iterations) == 3


MIXED = [
    (np.float32, (3, 4)), (np.float32, (2_000,)), (np.float64, (5,)), (np.complex64, ()), (np.float32, (0, 2)),
    (np.float16, (7,)), (np.float32, (1,)), (np.float32, (1_025,)), (np.float32, (2, 3, 4)),
]  # fmt: skip
OPTIONS = [
    {},
    {"momentum": 0.9, "centered": True, "global_clipnorm": 1.0},
    {"clipvalue": 0.5, "clipnorm": 0.3, "nonfinite": "skip"},
    {"learning_rate": schedules.ExponentialDecay(0.1, 2, 0.5), "momentum": 0.5, "nesterov": True, "clipnorm": 1.0},
    {"use_ema": True, "weight_decay": 0.1, "bias_correction": True, "centered": True, "complex_as_real": True},
]


def trajectory(kinds, settings, is_grouped=False, steps=6):
    opt, variables = RMSprop(**({"learning_rate": 0.01} | settings)), drawn(kinds, 0)
    opt.build(variables)
    if is_grouped:
        opt.group(variables[::2], lr_mult=0.5, wd_mult=0.0)
    gradients = [drawn(kinds, 1 + step) for step in range(steps)]  # each at other places
    for given in gradients:
        opt.apply_gradients(zip(given, variables, strict=True))
    return bits(variables, opt)


@pytest.mark.parametrize("kinds", [MIXED[:1], MIXED[3:4], MIXED], ids=len)
@pytest.mark.parametrize("settings", OPTIONS, ids=str)
@pytest.mark.parametrize("is_grouped", [False, True])
def test_replayed_steps_give_the_bits_of_steps_that_check_in_python(monkeypatch, kinds, settings, is_grouped):
    taken = []
    step = replay.Replay.step
    with monkeypatch.context() as patch:
        patch.setattr(replay.Replay, "step", lambda *given: taken.append(1) or step(*given))
        replayed = trajectory(kinds, settings, is_grouped)
    assert len(taken) == 4  # all but the first two
    monkeypatch.setattr(replay, "keep", lambda *given: None)
    assert trajectory(kinds, settings, is_grouped) == replayed


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("count", [1, 5])
def test_each_dtype_is_replayed_with_the_bits_of_other_steps(monkeypatch, dtype, count):
    if "GPUSIM_FUZZ" in os.environ and dtype == "complex128":
        pytest.skip("the modulus takes approximate instructions, which err another way in each kernel here")
    kinds = [("complex64" if dtype.startswith("complex") else "float32", (3, 5))] * count

    def taken():
        opt = RMSprop(0.01, momentum=0.9, clipvalue=0.5, clipnorm=1.0)
        variables = [a.astype(dtype) for a in drawn(kinds, 0)]
        for seed in range(4):
            opt.apply_gradients([(g.astype(dtype), v) for g, v in zip(drawn(kinds, seed), variables, strict=True)])
        return bits(variables, opt)

    replayed = taken()
    monkeypatch.setattr(replay, "keep", lambda *given: None)
    assert taken() == replayed


def start(kinds=((np.float32, (4, 4)), (np.float32, (5,))), **settings):
    """Return an optimizer, variables and gradients after steps, so that the next is replayed."""
    variables, gradients = drawn(kinds, 0), drawn(kinds, 1)
    opt = RMSprop(0.01, **settings)
    for _ in range(5):  # from the third on they are replayed, and in the last the gradients are known
        opt.apply_gradients(zip(gradients, variables, strict=True))
    return opt, variables, gradients


def with_strides(g):
    return cupy.asfortranarray(g)


def every_other(g):
    return cupy.repeat(g, 2, axis=1)[:, ::2]


def of_another_dtype(g):
    return g.astype(np.float64)


@pytest.mark.parametrize("made", [with_strides, every_other, of_another_dtype])
@pytest.mark.parametrize("kinds", [[(np.float32, (4, 4))], [(np.float32, (4, 4))] * 5], ids=len)
def test_a_gradient_that_lies_in_memory_in_another_way_counts_as_its_numbers(made, kinds):
    (one, v, g), (two, w, h) = start(kinds), start(kinds)
    one.apply_gradients([(made(g[0]), v[0]), *zip(g[1:], v[1:], strict=True)])
    copies = made(h[0]).astype(np.float32, order="C")
    two.apply_gradients([(copies, w[0]), *zip(h[1:], w[1:], strict=True)])
    assert bits(v, one) == bits(w, two)


RESHAPED = [
    ((4, 4), (2, 8)), ((4, 4), (16,)), ((4, 4), (4, 2, 2)), ((16,), (1, 16)), ((16,), (16, 1)),
    ((2, 2, 4), (4, 4)), ((2, 4, 2), (4, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("which", ["gradient", "variable"])
@pytest.mark.parametrize(("shape", "other"), RESHAPED)
@pytest.mark.parametrize("count", [1, 5])
def test_what_is_reshaped_in_place_is_refused_and_nothing_changes(which, shape, other, count):
    opt, variables, gradients = start([(np.float32, shape)] * count)
    (gradients if which == "gradient" else variables)[-1].shape = other
    before = bits(variables, opt)
    with pytest.raises(ValueError, match="shape"):
        opt.apply_gradients(zip(gradients, variables, strict=True))
    assert bits(variables, opt) == before


BAD = {
    "shape": lambda g, v: (g[0][:3], v[0]),
    "last axis": lambda g, v: (g[0][:, :3], v[0]),
    "integers": lambda g, v: (g[0].astype(np.int32), v[0]),
    "complex": lambda g, v: (g[0].astype(np.complex64), v[0]),
    "of NumPy": lambda g, v: (g[0].get(), v[0]),
    "no pair": lambda g, v: g[0],
    "three": lambda g, v: (g[0], v[0], v[0]),
    "twice": lambda g, v: (g[1], v[1]),
    "part of another": lambda g, v: (g[1][:2], v[1][:2]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_list_after_good_steps_is_refused_and_changes_nothing(case):
    opt, variables, gradients = start()
    before = bits(variables, opt)
    with pytest.raises((TypeError, ValueError)):
        opt.apply_gradients([BAD[case](gradients, variables), (gradients[1], variables[1])])
    assert bits(variables, opt) == before


@pytest.mark.parametrize("place", ["variable", "part of a variable", "slot"])
@pytest.mark.parametrize("count", [2, 6])  # few, and many
def test_a_gradient_in_memory_that_is_updated_counts_as_it_was_before_the_step(place, count):
    def taken(made):
        opt, (w, v, *others), gradients = start([(np.float64, (9,))] * count)
        here = {"variable": w, "part of a variable": cupy.from_dlpack(w), "slot": opt.get_slot(w, "rms").array}
        given = [gradients[0], made(here[place]), *gradients[2:]]
        opt.apply_gradients(zip(given, (w, v, *others), strict=True))
        return bits([w, v, *others], opt)

    assert taken(lambda g: g) == taken(cupy.copy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.5), ("rho", 0.5), ("momentum", 0.9), ("epsilon", 0.1), ("centered", True),
        ("clipvalue", 0.1), ("clipnorm", 0.1), ("global_clipnorm", 0.1), ("nonfinite", "skip"),
        ("nonfinite", "raise"), ("learning_rate", lambda: 0.25), ("weight_decay", 0.1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 5])
def test_a_setting_changed_between_steps_takes_effect_in_the_next(monkeypatch, name, value, count):
    def taken():
        opt, variables, gradients = start([(np.float32, (40,))] * count)
        setattr(opt, name, value)
        for _ in range(3):
            opt.apply_gradients(zip(gradients, variables, strict=True))
        return bits(variables, opt)

    replayed = taken()
    monkeypatch.setattr(replay, "keep", lambda *given: None)
    assert taken() == replayed


@pytest.mark.parametrize("settings", [{"nonfinite": "skip"}, {"nonfinite": "skip", "clipnorm": 1.0}], ids=str)
@pytest.mark.parametrize("count", [1, 5])
def test_replayed_steps_that_are_not_finite_are_left_out_and_counted(settings, count):
    opt, variables, gradients = start([(np.float32, (40,))] * count, **settings)
    before = bits(variables, opt)
    spoilt = [gradients[0] * np.float32(np.nan), *gradients[1:]]
    opt.apply_gradients(zip(spoilt, variables, strict=True))
    assert int(opt.iterations) == 5
    assert bits(variables, opt) == before
    opt.apply_gradients(zip(gradients, variables, strict=True))
    assert int(opt.iterations) == 6
    assert opt.iterations.skipped == 1


def test_a_variable_that_gets_a_constraint_after_good_steps_is_noticed():
    opt, v, g = RMSprop(0.1), Variable(cupy.ones(2)), cupy.ones(2)
    for _ in range(3):
        opt.apply_gradients([(g, v)])
    v.constraint = lambda array: array * 0
    opt.apply_gradients([(g, v)])
    assert not v.array.any()
    assert int(opt.iterations) == 4


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("settings", [{}, {"clipnorm": 0.1}], ids=str)
def test_a_step_that_would_be_replayed_is_captured_if_the_stream_captures(count, settings):
    kinds = [(np.float32, (40,))] * count
    (one, v, g), (two, w, h) = start(kinds, **settings), start(kinds, **settings)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        one.apply_gradients(zip(g, v, strict=True))
        graph = stream.end_capture()
        for _ in range(2):
            one.advance()
            graph.launch(stream)
            two.apply_gradients(zip(h, w, strict=True))
        stream.synchronize()
        assert bits(v, one) == bits(w, two)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("settings", [{}, {"clipnorm": 0.1}], ids=str)
def test_a_replayed_step_is_launched_in_the_stream_that_is_current_then(lazily, count, settings):
    kinds = [(np.float32, (40,))] * count
    (one, v, g), (two, w, h) = start(kinds, **settings), start(kinds, **settings)
    others = drawn(kinds, 5)
    cupy.cuda.Device().synchronize()
    gc.disable()  # a simulator runs Python inside of a kernel, where to free memory would be to wait for itself
    with lazily(), cupy.cuda.Stream(non_blocking=True) as stream:  # which alone has the gradients
        for gradient, other in zip(g, others, strict=True):
            gradient += other
        one.apply_gradients(zip(g, v, strict=True))
        stream.synchronize()
        given = bits(v, one)
    gc.enable()
    two.apply_gradients([(gradient + other, x) for gradient, other, x in zip(h, others, w, strict=True)])
    assert given == bits(w, two)


def test_replayed_steps_and_others_may_take_turns(monkeypatch):
    kinds = [(np.float32, (6, 4))] * 5

    def taken():
        opt, variables, gradients = start(kinds, clipnorm=0.5)
        rows = IndexedSlices(gradients[0][:3], cupy.asarray([4, 1, 4]))
        for step in range(8):
            first = rows if step % 3 == 0 else gradients[0]
            part = slice(0, 4 if step % 4 == 3 else 5)
            given = [first, *gradients[1:]]
            opt.apply_gradients(list(zip(given, variables, strict=True))[part])
        return bits(variables, opt)

    replayed = taken()
    monkeypatch.setattr(replay, "keep", lambda *given: None)
    assert taken() == replayed


def test_many_steps_may_be_replayed_before_the_device_has_taken_the_first(lazily):
    kinds = [(np.float32, (40,))] * 6
    (one, v, _), (two, w, _) = start(kinds, clipnorm=0.1), start(kinds, clipnorm=0.1)
    prepared = [drawn(kinds, seed) for seed in range(2, 8)]
    cupy.cuda.Device().synchronize()
    gc.disable()
    with lazily(), cupy.cuda.Stream(non_blocking=True) as stream:
        for given in prepared:
            one.apply_gradients(zip(given, v, strict=True))
        stream.synchronize()
        taken = bits(v, one)
    gc.enable()
    for given in prepared:
        two.apply_gradients(zip(given, w, strict=True))
        cupy.cuda.Device().synchronize()
    assert taken == bits(w, two)


@pytest.mark.parametrize("count", [1, 8])
def test_an_optimizer_may_be_gone_before_its_replayed_step_in_another_stream_is_done(lazily, count):
    kinds = [(np.float32, (20 + i,)) for i in range(count)]
    (one, v, g), (two, w, h) = start(kinds, clipnorm=1.0), start(kinds, clipnorm=1.0)
    one.apply_gradients(zip(g, v, strict=True))
    new = drawn(kinds, 7)
    cupy.cuda.Device().synchronize()
    gc.disable()
    with lazily():
        with cupy.cuda.Stream(non_blocking=True) as own:
            one.apply_gradients(zip(new, v, strict=True))
        del one
        others = [cupy.full(n, 7, np.uint64) for _ in range(10) for n in (1, 2, 8, 10, 27, 40, 64)]
        cupy.cuda.get_current_stream().synchronize()
        own.synchronize()
    gc.enable()
    two.apply_gradients(zip(h, w, strict=True))
    two.apply_gradients(zip(new, w, strict=True))
    assert [a.get().tobytes() for a in v] == [a.get().tobytes() for a in w]
    assert all((other == 7).all() for other in others)


def test_an_optimizer_that_is_let_go_leaves_its_replay_to_nobody():
    opt, variables, _gradients = start([(np.float32, (9,))] * 5, clipnorm=1.0)
    kept = ref(opt._state.parameters.plans[id(variables[0])])
    assert kept() is not None
    gc.collect()
    gc.disable()
    del opt
    assert kept() is None  # without a collection of what refers to itself
    gc.enable()
