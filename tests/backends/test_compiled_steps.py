"""Steps of libraries that compile: the results of eager ones, nothing compiled twice, no memory taken."""

import copy

import numpy as np
import pytest

from rmsprop import RMSprop, Variable, schedules
from rmsprop_array_api import compiled, replays

jax = pytest.importorskip("jax", reason="JAX is in the extra 'interop'")
jnp = jax.numpy

SHAPES = [(), (0, 3), (50, 20)]
OPTIONS = {
    "plain": {},
    "momentum": {"momentum": 0.9, "nesterov": True},
    "centered": {"centered": True, "bias_correction": True},
    "clipped": {"clipvalue": 0.5, "clipnorm": 1.0, "momentum": 0.5},
    "global norm": {"global_clipnorm": 0.7, "nonfinite": "skip"},
    "decay": {"weight_decay": 0.1, "decoupled": True, "use_ema": True, "ema_overwrite_frequency": 3},
    "reals": {"complex_as_real": True, "clipvalue": 0.3},
}


def one_step(dtype, options):
    """Return variables and slots after a step from random ones."""
    rng = np.random.default_rng(0)

    def drawn(shape, is_complex="complex" in dtype):
        parts = rng.standard_normal((2, *shape))
        return parts[0] + 1j * parts[1] if is_complex else parts[0]

    variables = [Variable(jnp.asarray(drawn(shape), dtype)) for shape in SHAPES]
    gradients = [jnp.asarray(drawn(shape), dtype) for shape in SHAPES]
    opt = RMSprop(0.01, **options)
    opt.build(variables)
    opt.group(variables[1:3], lr_mult=0.5)
    old = [w.numpy() for w in opt.weights[1:]]
    new = [0.1 * drawn(w.shape, w.dtype.kind == "c") for w in old]
    squares = [np.abs(w.real) + (1j * np.abs(w.imag) if w.dtype.kind == "c" else 0) + 1 for w in new]
    averages = [opt.get_slot(v, "rms").shape for v in variables]
    count = len(averages)  # the averages of squares are the first slots
    opt.set_weights(
        [np.array(2), *[w.astype(o.dtype) for w, o in zip(squares[:count] + new[count:], old, strict=True)]]
    )
    opt.apply_gradients(zip(gradients, variables, strict=True))
    return [np.asarray(v.array).astype(complex) for v in [*variables, *opt.weights[1:]]]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[(name, dtype) for name in OPTIONS for dtype in ("float32", "complex64")],
        ("plain", "float16"),
        ("decay", "bfloat16"),
    ],
)
def test_compiled_steps_are_within_4_ulp_of_eager_ones(name, dtype):
    found = one_step(dtype, OPTIONS[name])
    with jax.disable_jit():
        expected = one_step(dtype, OPTIONS[name])
    for position, (a, b) in enumerate(zip(found, expected, strict=True)):
        is_half = position < len(SHAPES) and "float16" in dtype  # slots of halves are in single precision
        eps = float(jnp.finfo(dtype if is_half else "float32").eps)
        assert np.all(np.abs(a - b) <= 4 * eps * np.maximum(np.abs(b), 0.1))


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        v = Variable(jnp.linspace(-1, 1, 100, dtype=jnp.float64))
        w, opt, other = np.linspace(-1, 1, 100), RMSprop(0.01, momentum=0.9), RMSprop(0.01, momentum=0.9)
        for k in range(5):
            opt.apply_gradients([(v.array * (k + 1), v)])
            other.apply_gradients([(w * (k + 1), w)])
        np.testing.assert_allclose(np.asarray(v.array), w, rtol=1e-12)


def test_numbers_that_change_in_each_step_compile_nothing_again(monkeypatch):
    traced, dense = [], compiled.dense
    monkeypatch.setattr(compiled, "dense", lambda *given: traced.append(given) or dense(*given))
    v = Variable(jnp.ones(17))
    opt = RMSprop(schedules.ExponentialDecay(0.1, 2, 0.5), rho=0.9, momentum=0.3, weight_decay=0.01)
    for k in range(6):
        opt.apply_gradients([(v.array, v)])
        opt.rho = 0.9 - 0.01 * k
    assert len(traced) == 1


def test_the_memory_of_variables_and_slots_is_used_again():
    v, opt = Variable(jnp.ones(100_000)), RMSprop(0.01, momentum=0.9)
    gradient = jnp.ones(100_000)

    def addresses():
        return {each.array.unsafe_buffer_pointer() for each in [v, *opt.weights[1:]]}

    opt.apply_gradients([(gradient, v)])
    before = addresses()
    for _ in range(3):
        opt.apply_gradients([(gradient, v)])
    assert addresses() == before


def test_arrays_that_others_hold_stay_what_they_are():
    v, opt = Variable(jnp.linspace(0, 1, 1000)), RMSprop(0.1, momentum=0.9)
    held, copies, views = [], [], []
    for _ in range(4):
        held += [v.array, opt.weights[1].array if len(opt.weights) > 1 else v.array]
        copies += [np.array(each) for each in held[-2:]]
        views.append(np.asarray(v.array))
        copy_of_all = copy.deepcopy((opt, v))
        before = np.array(copy_of_all[1].array)
        opt.apply_gradients([(jnp.cos(v.array), v)])
        np.testing.assert_array_equal(copy_of_all[1].array, before)
    for array, expected in zip(held, copies, strict=True):
        np.testing.assert_array_equal(array, expected)
    for view, expected in zip(views, copies[::2], strict=True):
        np.testing.assert_array_equal(view, expected)


def test_memory_that_the_user_made_is_not_taken():
    v = Variable(jnp.linspace(0, 1, 1000))
    alias = jax.device_put(v.array, jax.devices()[0])  # another array in the same memory
    for _ in range(2):
        RMSprop(0.1).apply_gradients([(jnp.ones(1000), v)])
    np.testing.assert_array_equal(alias, jnp.linspace(0, 1, 1000))


def test_a_variable_may_be_its_own_gradient():
    v, w = Variable(jnp.ones(10)), np.ones(10, np.float32)
    opt, other = RMSprop(0.1), RMSprop(0.1)
    for _ in range(3):
        opt.apply_gradients([(v, v)])
        other.apply_gradients([(w.copy(), w)])
    np.testing.assert_allclose(v.numpy(), w, rtol=1e-6)


def test_a_step_that_is_undone_finds_what_was_before():
    calls = []

    def fails(array):
        calls.append(array)
        if len(calls) == 3:
            raise ZeroDivisionError
        return array

    v, w = Variable(jnp.ones(10)), Variable(jnp.ones(10), constraint=fails)
    opt = RMSprop(0.1)
    for _ in range(2):
        opt.apply_gradients([(jnp.ones(10), v), (jnp.ones(10), w)])
    before = [each.numpy() for each in (v, w, *opt.weights)]
    with pytest.raises(ZeroDivisionError):
        opt.apply_gradients([(jnp.ones(10), v), (jnp.ones(10), w)])
    for each, expected in zip((v, w, *opt.weights), before, strict=True):
        np.testing.assert_array_equal(each.numpy(), expected)
    opt.apply_gradients([(jnp.ones(10), v), (jnp.ones(10), w)])


def test_an_interrupt_while_results_are_put_in_place_loses_none(monkeypatch):
    variables, opt = [Variable(jnp.ones(10)) for _ in range(3)], RMSprop(0.1)
    pairs = [(jnp.ones(10), v) for v in variables]
    opt.apply_gradients(pairs)
    replace, calls = replays.replace, []

    def interrupted(parameters, new):
        calls.append(new)
        if len(calls) == 1:
            replace(parameters[:1], new[:1])
            raise KeyboardInterrupt
        replace(parameters, new)

    monkeypatch.setattr(replays, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.apply_gradients(pairs)
    assert len({v.numpy().tobytes() for v in variables}) == 1


def taken_by_replay(monkeypatch):
    """Return a list to which each step adds whether it was taken again without all checks."""
    taken, accept = [], replays.Replayed.accept

    def noted(self, given, slots, hyper):
        accepted = accept(self, given, slots, hyper)
        if hyper is not None or accepted is None:
            taken.append(accepted is not None)
        return accepted

    monkeypatch.setattr(replays.Replayed, "accept", noted)
    return taken


def test_steps_that_repeat_the_one_before_are_not_checked_again(monkeypatch):
    taken = taken_by_replay(monkeypatch)
    variables, other = [Variable(jnp.ones(n)) for n in (3, 4)], [np.ones(n, np.float32) for n in (3, 4)]
    opt, reference = (
        RMSprop(schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9),
        RMSprop(schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9),
    )
    for k in range(5):
        opt.apply_gradients([(jnp.full(v.shape, k - 2.0), v) for v in variables])
        reference.apply_gradients([(np.full(w.shape, k - 2.0, np.float32), w) for w in other])
    assert taken == [True] * 4
    for v, w in zip(variables, other, strict=True):
        np.testing.assert_allclose(v.numpy(), w, rtol=1e-6)


def replaced(v):
    v.array = jnp.ones(4)


@pytest.mark.parametrize(
    ("change", "gradient", "error"),
    [
        pytest.param(lambda opt, v: setattr(opt, "clipvalue", 0.5), jnp.ones(3), None, id="clipped by value"),
        pytest.param(lambda opt, v: setattr(opt, "clipnorm", 0.5), jnp.ones(3), None, id="clipped by norm"),
        pytest.param(lambda opt, v: setattr(opt, "nonfinite", "skip"), jnp.full(3, jnp.nan), None, id="skipped"),
        pytest.param(lambda opt, v: setattr(v, "constraint", jnp.abs), jnp.ones(3), None, id="constrained"),
        pytest.param(lambda opt, v: None, np.ones(3, np.float32), TypeError, id="another library"),
        pytest.param(lambda opt, v: None, jnp.ones(4), ValueError, id="another shape"),
        pytest.param(lambda opt, v: None, jnp.ones(3, "complex64"), TypeError, id="complex"),
        pytest.param(lambda opt, v: None, jnp.ones(3, "int32"), TypeError, id="integers"),
        pytest.param(lambda opt, v: None, jnp.ones(3, "bfloat16"), None, id="another dtype"),
        pytest.param(lambda opt, v: replaced(v), jnp.ones(3), ValueError, id="another array in the variable"),
    ],
)
def test_a_step_that_differs_from_the_one_before_is_checked_again(monkeypatch, change, gradient, error):
    taken, results = taken_by_replay(monkeypatch), []
    for is_replayed in (True, False):
        v, opt = Variable(jnp.ones(3)), RMSprop(0.1)
        opt.apply_gradients([(jnp.ones(3), v)])
        opt.apply_gradients([(jnp.ones(3), v)])
        change(opt, v)
        if not is_replayed:
            opt._state.parameters.plans.clear()
        taken.clear()
        if error is None:
            opt.apply_gradients([(gradient, v)])
        else:
            with pytest.raises(error, match="[Vv]ariable 0"):
                opt.apply_gradients([(gradient, v)])
        assert taken == [False] * is_replayed
        results.append([v.numpy(), *[w.numpy() for w in opt.weights]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
