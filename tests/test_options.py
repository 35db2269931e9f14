"""Options of the formula, multipliers, averages and accumulation, on NumPy and CuPy."""

import copy
import itertools
import logging
import pickle

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, schedules
from rmsprop.testing import VariableState, assert_step, hyper_of, snapshot
from rmsprop.testing.backend_tests import OPTIONS

ALL = {
    "momentum": 0.9,
    "nesterov": True,
    "momentum_includes_lr": False,
    "weight_decay": 0.1,
    "bias_correction": True,
    "initial_accumulator": 1.0,
    "centered": True,
    "maximize": True,
    "use_ema": True,
}
RICH = [OPTIONS[2], ALL, ALL | {"decoupled": True}]
"""Of the combinations that the conformance suite takes through all dtypes, those with most terms."""


def drawn(xp, dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        array = array + 1j * rng.standard_normal(shape)
    return xp.asarray(array.astype(dtype))


def to_host(x):
    x = x.array if isinstance(x, Variable) else x
    return x.get() if hasattr(x, "get") else np.asarray(x)


def assert_steps(opt, variables, gradients):
    """Take a step, and compare it with the oracle."""
    opt.build(variables)
    before, hyper = [snapshot(opt, v) for v in variables], hyper_of(opt)
    opt.apply_gradients(zip(gradients, variables, strict=True))
    for v, b, g in zip(variables, before, gradients, strict=True):
        assert_step(b, snapshot(opt, v), to_host(g), hyper)


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0, "momentum_includes_lr": False}, {"nesterov": True}])
def test_steps_of_which_cancellation_leaves_nothing_known_are_compared_without_a_warning(xp, settings):
    opt = RMSprop(**{"rho": 0.0, "momentum": 0.5, "centered": True, "epsilon_in_sqrt": True} | settings)
    assert_steps(opt, [xp.zeros((2, 3), np.float16)], [xp.asarray([[0, 0, 0], [0, 0, 0.25]], np.float16)])


@pytest.mark.parametrize("settings", RICH, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("layout", ["list", "strided", "as reals"])
def test_options_hold_for_lists_strided_arrays_and_complex_numbers_as_reals(xp, settings, dtype, layout):
    shapes = [(300, 70), (7,), (), (5, 3)] if layout == "list" else [(6, 4)]
    variables = [drawn(xp, dtype, shape, k) for k, shape in enumerate(shapes)]
    if layout == "strided":
        variables = [xp.repeat(v, 2, axis=1)[:, ::2].T for v in variables]
    opt = RMSprop(0.01, complex_as_real=layout == "as reals", **settings)
    for seed in range(3):
        assert_steps(opt, variables, [drawn(xp, dtype, v.shape, seed) for v in variables])


@pytest.mark.parametrize("settings", RICH, ids=str)
@pytest.mark.parametrize("state_dtype", ["bfloat16", "uint8"])
@pytest.mark.parametrize("layout", ["dense", "sparse", "eager"])
def test_options_hold_with_compact_slots_for_what_the_codes_stand_for(settings, state_dtype, layout):
    v = drawn(np, "float64", (40, 128))
    opt = RMSprop(0.01, lazy=layout == "sparse", state_dtype=state_dtype, **settings)
    opt.build([v])
    rows = np.array([3, 17, 20])
    for seed in range(3):
        g, hyper = drawn(np, "float64", (3, 128) if layout != "dense" else v.shape, seed), hyper_of(opt)
        before = snapshot(opt, v)
        opt.apply_gradients([(g if layout == "dense" else IndexedSlices(g, rows), v)])
        after = snapshot(opt, v)
        # Slots are rounded when they are stored, but the variable is that of slots in full.
        full = RMSprop(0.01, lazy=hyper.lazy, **settings)
        w = before.variable.copy()
        full.build([w])
        rms, momentum, mg, average = before[1:]
        least = {"bfloat16": 1 + 2.0**-6, "uint8": 1 + 2.0**-3}[state_dtype]
        rms = rms if mg is None else np.maximum(rms, mg**2 * least)
        slots = [x for x in (rms, momentum, mg, average) if x is not None]
        full.set_weights([np.array(seed), *slots])
        full.apply_gradients([(g if layout == "dense" else IndexedSlices(g, rows), w)])
        np.testing.assert_allclose(after.variable, w, rtol=1e-14, atol=1e-15)
        if average is not None:
            np.testing.assert_allclose(after.average, full.get_slot(w, "average").numpy(), rtol=1e-14, atol=1e-15)


def test_weight_decay_of_a_sparse_gradient_is_that_of_the_rows_it_lists(xp):
    for lazy, settings in itertools.product((True, False), ({}, {"momentum": 0.9})):
        table = xp.ones((4, 2))
        opt = RMSprop(0.5, weight_decay=0.5, lazy=lazy, **settings)
        for _ in range(2):
            opt.apply_gradients([(IndexedSlices(xp.zeros((2, 2)), xp.asarray([1, 1])), table)])
        host, rms = to_host(table), opt.get_slot(table, "rms").numpy()
        assert (host[[0, 2, 3]] == 1).all()
        assert (rms[[0, 2, 3]] == 0).all()
        assert (host[1] < 1).all()
        assert (rms[1] > 0).all()


def test_a_weight_decay_may_be_a_schedule_a_callable_or_a_variable_and_is_read_in_each_step():
    decay = schedules.ExponentialDecay(0.5, 1, 0.5)
    changing = Variable(0.5, dtype="float64")
    results = []
    for given in (decay, lambda: float(changing), changing):
        v, opt = np.ones(1), RMSprop(1.0, weight_decay=given, decoupled=True)
        for k in range(3):
            changing.assign(0.5 ** (k + 1))
            opt.apply_gradients([(np.zeros(1), v)])
        results.append(v[0])
    assert results == [0.5 * 0.75 * 0.875] * 3
    opt = RMSprop(weight_decay=decay)
    assert RMSprop.from_config(opt.get_config()).weight_decay == decay
    assert RMSprop(weight_decay=None).weight_decay == 0.0


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("epsilon_in_sqrt", [False, True])
def test_bias_correction_divides_the_averages(centered, epsilon_in_sqrt):
    rho, lr, epsilon = 0.75, 0.5, 0.125
    settings = {"centered": centered, "epsilon_in_sqrt": epsilon_in_sqrt, "bias_correction": True}
    opt = RMSprop(lr, rho, epsilon=epsilon, **settings)
    v, rms, mg, expected = np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)
    for t in range(1, 6):
        g = drawn(np, "float64", 3, t)
        opt.apply_gradients([(g, v)])
        rms, mg = rho * rms + (1 - rho) * g**2, rho * mg + (1 - rho) * g
        variance = rms / (1 - rho**t) - (mg / (1 - rho**t)) ** 2 * centered
        root = np.sqrt(np.maximum(variance, 0) + epsilon * epsilon_in_sqrt) + epsilon * (not epsilon_in_sqrt)
        expected -= lr * g / root
        np.testing.assert_allclose(v, expected, rtol=1e-7)


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_bias_correction_of_averages_that_are_none_or_never_change_is_finite(xp, rho):
    v, opt = xp.ones(2, np.float32), RMSprop(0.1, rho=rho, bias_correction=True, epsilon=2.0**-126, centered=True)
    for _ in range(2):
        opt.apply_gradients([(xp.asarray(np.float32([0.0, 0.0])), v)])
    assert (to_host(v) == 1).all()


def test_the_momentum_gathers_directions_if_the_learning_rate_is_not_in_it():
    results = []
    for includes in (True, False):
        rates = schedules.PiecewiseConstantDecay([0], [1.0, 0.125])
        v, opt = np.zeros(1), RMSprop(rates, rho=0.0, momentum=0.5, epsilon=1.0, momentum_includes_lr=includes)
        for _ in range(2):
            opt.apply_gradients([(np.ones(1), v)])
        results.append(-v[0] * np.sqrt(2.0))
    np.testing.assert_allclose(results, [1 + 0.5 + 0.125, 1 + 0.125 * 1.5])


def test_uphill_with_weight_decay_still_leads_to_zero(xp):
    for decoupled in (True, False):
        v = xp.asarray([5.0, -5.0])
        opt = RMSprop(0.1, weight_decay=1.0, decoupled=decoupled, maximize=True)
        for _ in range(200):
            opt.apply_gradients([(xp.zeros(2), v)])
        assert (abs(to_host(v)) < 0.2).all()
        opt.apply_gradients([(xp.asarray([1e3, 1e3]), v)])
        assert (to_host(v) > 0).all()


@pytest.mark.parametrize("complex_as_real", [False, True])
@pytest.mark.parametrize("state_dtype", [None, "bfloat16", "uint8"])
def test_a_new_average_of_squares_begins_where_it_is_told(complex_as_real, state_dtype):
    dtype = "complex128"
    opt = RMSprop(initial_accumulator=0.5, complex_as_real=complex_as_real, state_dtype=state_dtype, momentum=0.5)
    v = np.ones((2, 64), dtype)
    opt.build([v])
    np.testing.assert_array_equal(opt.get_slot(v, "rms").numpy(), 0.5 + 0.5j if complex_as_real else 0.5)
    np.testing.assert_array_equal(opt.get_slot(v, "momentum").numpy(), 0)


# Multipliers


@pytest.mark.parametrize("settings", [{"clipnorm": 1.0}, ALL, ALL | {"decoupled": True}], ids=str)
@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_variable_of_a_group_is_updated_as_by_an_optimizer_with_its_numbers(xp, settings, count, is_sparse):
    variables, twins = ([drawn(xp, "float32", (3 + k, 2), k) for k in range(count)] for _ in range(2))
    multipliers = [(0.5, 0.0), (1.0, 1.0), (2.0, 0.25), (1.0, 4.0)] * 2
    opt = RMSprop(0.25, **settings)
    opt.build(variables)
    for v, (lr, wd) in zip(variables, multipliers, strict=False):
        opt.group(v, lr_mult=lr, wd_mult=wd)
    alone = []
    for lr, wd in multipliers[:count]:
        alone.append(RMSprop(0.25 * lr, **settings))
        decay = settings.get("weight_decay", 0.0) * wd
        if "weight_decay" in settings:
            alone[-1].weight_decay = lambda decay=decay: decay  # not left out if it is 0, which is another formula
    for seed in range(3):
        gradients = [drawn(xp, "float32", v.shape, seed) for v in variables]
        if is_sparse:
            gradients = [IndexedSlices(g, xp.arange(g.shape[0])) for g in gradients]
        opt.apply_gradients(zip(gradients, variables, strict=True))
        for one, g, v in zip(alone, gradients, twins, strict=True):
            one.apply_gradients([(g, v)])
    for a, b in zip(variables, twins, strict=True):
        # On a GPU, kernels of lists may fuse other multiplications and additions.
        np.testing.assert_allclose(to_host(a), to_host(b), rtol=0 if xp is np else 1e-6)


def test_groups_share_the_norm_of_all_gradients(xp):
    variables = [xp.zeros(4) for _ in range(5)]
    opt = RMSprop(1.0, rho=0.0, epsilon=1.0, epsilon_in_sqrt=False, global_clipnorm=0.5)
    opt.group(variables[0], lr_mult=0.0)
    opt.apply_gradients([(xp.ones(4), v) for v in variables])
    clipped = 0.5 / np.sqrt(20)
    assert (to_host(variables[0]) == 0).all()
    np.testing.assert_allclose(to_host(variables[1]), -clipped / (clipped + 1))


def test_multipliers_change_between_steps_and_leave_what_they_are_not_told(xp):
    v = xp.ones(3)
    opt = RMSprop(0.5, weight_decay=0.5, decoupled=True)
    for lr_mult, expected in ((1.0, 0.75), (2.0, 0.375), (0.0, 0.375)):
        opt.group([v], lr_mult=lr_mult)
        opt.apply_gradients([(xp.zeros(3), v)])
        np.testing.assert_array_equal(to_host(v), expected)
    opt.exclude_from_weight_decay([v])
    opt.group([v], lr_mult=1.0)
    opt.apply_gradients([(xp.zeros(3), v)])
    np.testing.assert_array_equal(to_host(v), 0.375)


def test_names_exclude_variables_from_weight_decay_that_are_there_or_come_later():
    first, later, other = (Variable([1.0], name=name) for name in ("a/bias", "b/bias", "kernel"))
    opt = RMSprop(0.5, weight_decay=0.5, decoupled=True)
    opt.build([first])
    opt.exclude_from_weight_decay(var_names=["bias$"])
    opt.apply_gradients([(np.zeros(1, np.float32), v) for v in (first, later, other)])
    assert [v.numpy()[0] for v in (first, later, other)] == [1.0, 1.0, 0.75]


def test_groups_outlive_files_pickles_and_copies(tmp_path):
    def stepped(opt, arrays):
        opt.apply_gradients([(a * 0 + 1, a) for a in arrays])
        return [a.copy() for a in arrays]

    def fresh():
        return [np.ones(2), np.ones(3), np.ones(2)]

    arrays = fresh()
    opt = RMSprop(0.5, weight_decay=0.25)
    opt.exclude_from_weight_decay(var_names=["array_2"])
    opt.build(arrays)
    opt.group(arrays[1], lr_mult=0.125, wd_mult=3.0)
    opt.save(tmp_path / "x", arrays)
    pickled, copied = pickle.loads(pickle.dumps((opt, arrays))), copy.deepcopy((opt, arrays))
    loaded = RMSprop.load(tmp_path / "x"), fresh()
    loaded[0].build(loaded[1])
    restored = RMSprop(0.5, weight_decay=0.25), fresh()
    restored[0].restore(tmp_path / "x", restored[1])
    expected = stepped(opt, arrays)
    for each in (pickled, copied, loaded, restored):
        for a, b in zip(stepped(*each), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"lr_mult": "a"}, TypeError, "lr_mult"),
        ({"wd_mult": -1.0}, ValueError, "wd_mult"),
        ({"lr_mult": np.nan}, ValueError, "lr_mult"),
    ],
)
def test_bad_multipliers_are_refused_and_nothing_is_changed(arguments, error, words):
    v, opt = np.ones(2), RMSprop()
    with pytest.raises(error, match=words):
        opt.group(v, **arguments)
    for names in ("bias", [1], ["("]):
        with pytest.raises((TypeError, ValueError), match="var_names"):
            opt.exclude_from_weight_decay(v, names)
    assert opt.get_slot_names() == []


def test_a_variable_that_is_not_trainable_is_left_out_without_a_word(caplog, xp):
    frozen, other = Variable(xp.ones(2), trainable=False), Variable(xp.ones(2))
    opt = RMSprop(0.1)
    with caplog.at_level(logging.INFO):
        for gradient in (xp.ones(2), None):
            opt.apply_gradients([(gradient, frozen), (xp.ones(2), other)])
        assert opt.apply_gradients([(xp.ones(2), frozen)]) is None
    assert not caplog.records
    assert (to_host(frozen) == 1).all()
    assert opt.iterations == 2
    before = to_host(other).copy()
    other.trainable = False
    opt.apply_gradients([(xp.ones(2), other)])  # as in the steps before, but for that
    np.testing.assert_array_equal(to_host(other), before)


# Averages


@pytest.mark.parametrize("count", [1, 5])
def test_averages_follow_the_variables_from_the_first_step_on_and_can_take_their_place(xp, count):
    variables = [drawn(xp, "float32", 6, k) for k in range(count)]
    opt, averages = RMSprop(0.1, use_ema=True, ema_momentum=0.75), [None] * count
    for seed in range(4):
        opt.apply_gradients([(drawn(xp, "float32", 6, seed), v) for v in variables])
        for k, v in enumerate(variables):
            host = to_host(v).astype(float)
            averages[k] = host if averages[k] is None else 0.75 * averages[k] + 0.25 * host
    before = [to_host(v).copy() for v in variables]
    with opt.swapped():
        for v, average in zip(variables, averages, strict=True):
            np.testing.assert_allclose(to_host(v), average, rtol=1e-6)
        with pytest.raises(RuntimeError, match="leave `with opt.swapped"):
            opt.apply_gradients([(variables[0], variables[0])])
        with pytest.raises(RuntimeError, match="swapped"):
            opt.swapped().__enter__()
    for v, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(to_host(v), value)
    opt.apply_gradients([(v, v) for v in variables])


def test_variables_are_put_back_after_an_error_and_without_averages_there_is_nothing_to_put():
    v, opt = np.ones(2), RMSprop(0.5, use_ema=True)
    with pytest.raises(ValueError, match="use_ema=True"):
        opt.swapped().__enter__()
    for _ in range(2):
        opt.apply_gradients([(np.ones(2), v)])
    before = v.copy()
    with pytest.raises(ZeroDivisionError), opt.swapped():
        assert (v != before).all()
        1 / 0  # noqa: B018
    np.testing.assert_array_equal(v, before)
    opt.apply_gradients([(np.ones(2), v)])


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
@pytest.mark.parametrize("is_immutable", [False, True])
@pytest.mark.parametrize("added", [0, 1])
def test_averages_overwrite_variables_each_so_many_steps_before_constraints(xp, nonfinite, is_immutable, added):
    if is_immutable and xp is not np:
        pytest.skip("CuPy's arrays are mutable")
    lib = pytest.importorskip("array_api_strict") if is_immutable else xp
    v = Variable(lib.asarray([1.0, 2.0]), constraint=(lambda array: array + added) if added else None)
    plain = [1.0, 2.0]
    opt = RMSprop(0.5, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2, nonfinite=nonfinite)
    twin, average = RMSprop(0.5), None
    w = np.array(plain)
    for step in range(4):
        opt.apply_gradients([(lib.asarray([1.0, -1.0]), v)])
        twin.apply_gradients([(np.array([1.0, -1.0]), w)])
        average = w.copy() if step == 0 else 0.5 * average + 0.5 * w
        if step % 2:
            w[...] = average
        w += added
        np.testing.assert_allclose(v.numpy(), w, rtol=1e-12)


def test_averages_of_halves_are_kept_in_single_precision(xp):
    v, opt = xp.ones(3, np.float16), RMSprop(1e-3, use_ema=True)
    for _ in range(5):
        opt.apply_gradients([(xp.ones(3, np.float16), v)])
    slot = opt.get_slot(v, "average")
    assert slot.dtype == np.float32
    before = slot.numpy().copy()
    with opt.swapped():
        np.testing.assert_array_equal(to_host(v), before.astype(np.float16))
    np.testing.assert_array_equal(slot.numpy(), before)


# Accumulation


@pytest.mark.parametrize("dtype", ["float32", "complex128", "float16"])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("is_immutable", [False, True])
def test_gradients_of_several_calls_make_one_step_with_their_mean(xp, dtype, is_sparse, is_immutable):
    if is_immutable and (xp is not np or dtype == "float16"):
        pytest.skip("only array_api_strict is immutable here, which has no halves")
    lib = pytest.importorskip("array_api_strict") if is_immutable else xp
    hosts = [drawn(np, dtype, (6, 2), k) for k in range(3)]
    variables = [Variable(lib.asarray(h)) for h in hosts]
    opt, other = RMSprop(0.1, accumulate=4, clipnorm=1.0), RMSprop(0.1, clipnorm=1.0)
    for cycle in range(2):
        total = [h * 0 for h in hosts]
        for k in range(4):
            before = [v.numpy().copy() for v in variables]
            pairs = []
            for i, v in enumerate(variables):
                g = drawn(np, dtype, (6, 2), 10 * cycle + k + i)
                rows = np.array([1, 4, 1, 0, 1, 5])
                given = lib.asarray(g)
                pairs.append((IndexedSlices(given, lib.asarray(rows)) if is_sparse else given, v))
                wide = g.astype(complex if np.dtype(dtype).kind == "c" else float)
                dense = np.zeros_like(wide)
                np.add.at(dense, rows if is_sparse else np.arange(6), wide)
                total[i] = total[i] + dense
            opt.apply_gradients(pairs)
            assert opt.iterations == cycle + (k == 3)
            for v, b in zip(variables, before, strict=True):
                assert (v.numpy() != b).any() == (k == 3)
        other.apply_gradients([((t / 4).astype(dtype), h) for t, h in zip(total, hosts, strict=True)])
        tolerance = {"float16": 2e-3, "float32": 1e-5, "complex128": 1e-13}[dtype]
        for v, h in zip(variables, hosts, strict=True):
            np.testing.assert_allclose(v.numpy(), h, rtol=tolerance, atol=tolerance)


def test_schedules_see_the_calls_as_in_keras_and_the_rate_of_the_next_step_is_told():
    seen = []

    class Recording(schedules.LearningRateSchedule):
        def __call__(self, step):
            seen.append(int(step))
            return 0.5

    v, opt = np.ones(1), RMSprop(Recording(), accumulate=3)
    for _ in range(6):
        opt.apply_gradients([(np.ones(1), v)])
    assert seen == [2, 5]
    assert opt.iterations == 2


def test_what_has_been_accumulated_outlives_files_pickles_and_weights(tmp_path):
    def fresh(**settings):
        return RMSprop(0.5, accumulate=3, **settings), np.ones(2)

    opt, v = fresh()
    for k in (1.0, 2.0):
        opt.apply_gradients([(np.full(2, k), v)])
    opt.save(tmp_path / "x", [v])
    others = [pickle.loads(pickle.dumps((opt, v))), copy.deepcopy((opt, v))]
    for k in range(2):
        other, w = fresh()
        if k == 0:
            other.restore(tmp_path / "x", [w])
        else:
            other.build([w])
            other.set_weights(opt.get_weights())
        others.append((other, w))
    loaded = RMSprop.load(tmp_path / "x"), np.ones(2)
    loaded[0].build([loaded[1]])
    for other, w in [(opt, v), *others, loaded]:
        other.apply_gradients([(np.full(2, 6.0), w)])
        assert other.iterations == 1
        expected, x = RMSprop(0.5), np.ones(2)
        expected.apply_gradients([(np.full(2, 3.0), x)])
        np.testing.assert_array_equal(w, x)
        assert (other.get_slot(w, "accumulator").numpy() == 0).all()


def test_a_call_that_fails_leaves_what_has_been_accumulated_and_a_step_that_is_left_out_begins_anew():
    v, opt = np.ones(2), RMSprop(0.5, accumulate=2, nonfinite="skip")
    opt.apply_gradients([(np.ones(2), v)])
    with pytest.raises(ValueError, match="shape"):
        opt.apply_gradients([(np.ones(3), v)])
    assert [w.tolist() for w in opt.get_weights()][2:] == [[1.0, 1.0], 1]
    opt.apply_gradients([(np.array([np.inf, 1.0]), v)])
    assert (opt.skipped, int(opt.iterations)) == (1, 0)
    assert (v == 1).all()
    assert [w.tolist() for w in opt.get_weights()][2:] == [[0.0, 0.0], 0]


def test_a_missing_gradient_keeps_the_sum_of_its_variable_for_the_next_step():
    a, b = np.zeros(1), np.zeros(1)
    opt = RMSprop(1.0, rho=0.0, epsilon=1.0, epsilon_in_sqrt=False, accumulate=2)
    with np.errstate(all="ignore"):
        opt.apply_gradients([(np.ones(1), a), (np.ones(1), b)])
        opt.apply_gradients([(np.ones(1), a)])
        assert (a[0], b[0]) == (-0.5, 0.0)
        opt.apply_gradients([(np.ones(1), a), (np.ones(1), b)])
        opt.apply_gradients([(np.ones(1), a), (np.ones(1), b)])
    assert b[0] == -1.5 / 2.5


def test_all_options_are_in_the_config_and_files(tmp_path):
    settings = ALL | {"decoupled": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 7, "accumulate": 2}
    opt, v = RMSprop(0.1, **settings), np.ones(3)
    assert {name: opt.get_config()[name] for name in settings} == settings
    assert repr(RMSprop.from_config(opt.get_config())) == repr(opt)
    for _ in range(3):
        opt.apply_gradients([(np.ones(3), v)])
    opt.save(tmp_path / "x", [v])
    again, w = RMSprop.load(tmp_path / "x"), v.copy()
    again.build([w])
    for each, x in ((opt, v), (again, w)):
        for _ in range(3):
            each.apply_gradients([(np.ones(3), x)])
    np.testing.assert_array_equal(v, w)
    assert VariableState._fields[1:] == tuple(again.get_slot_names()[:-1])
