"""Gradients with NaN or infinity: steps that propagate them, leave them out, or raise."""

import copy
import json
import pickle

import array_api_strict
import ml_dtypes
import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, schedules
from rmsprop.step import slots, take

BAD = [np.nan, -np.nan, np.inf, -np.inf]
DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "complex64", "complex128"]


def bits(opt, *variables):
    arrays = [v.numpy() if isinstance(v, Variable) else v for v in variables]
    return [a.tobytes() for a in (*arrays, *opt.get_weights())]


def check_left_out(opt, pairs, *variables):
    """Check that a step is left out: in whole, and only that."""
    before, skipped, steps = bits(opt, *variables), opt.skipped, int(opt.iterations)
    returned = opt.apply_gradients(pairs)
    assert int(returned) == steps
    assert bits(opt, *variables) == before
    assert opt.skipped == skipped + 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bad_element_anywhere_leaves_out_the_step_of_the_whole_list(dtype):
    variables = [np.ones(size, dtype) for size in (1, 5, 40_000)]
    opt = RMSprop(0.1, nonfinite="skip")
    for _ in range(2):
        opt.apply_gradients([(v.copy(), v) for v in variables])
    for k, place in [(0, 0), (1, 4), (2, 0), (2, 17_000), (2, 39_999)]:
        for bad in BAD + [complex(1, np.inf)] * (np.dtype(dtype).kind == "c"):
            gradients = [np.ones_like(v) for v in variables]
            gradients[k][place] = bad
            check_left_out(opt, list(zip(gradients, variables, strict=True)), *variables)
    opt.apply_gradients([(np.ones_like(v), v) for v in variables])
    assert opt.iterations == 3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_and_the_smallest_numbers_are_finite(dtype):
    info = ml_dtypes.finfo(dtype)
    numbers = [info.max, info.min, info.smallest_normal, info.smallest_subnormal, 0.0, -0.0]
    v = np.ones(len(numbers), dtype)
    opt = RMSprop(nonfinite="skip")
    for _ in range(2):
        opt.apply_gradients([(np.array(numbers).astype(dtype), v)])
    assert (opt.iterations, opt.skipped) == (2, 0)


SETTINGS = [
    {},
    {"clipvalue": 0.5},
    {"clipnorm": 0.5},
    {"global_clipnorm": 0.5},
    {"clipvalue": 0.5, "clipnorm": 0.5},
    {"clipnorm": 0.0},
    {"complex_as_real": True, "global_clipnorm": 1.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("bad", BAD[::2])
def test_gradients_are_judged_before_they_are_clipped(settings, bad):
    v, z = np.ones(4), np.ones(3, np.complex64)
    opt = RMSprop(nonfinite="skip", **settings)
    good = [(np.ones(4), v), (np.ones(3, np.complex64), z)]
    for _ in range(3):
        opt.apply_gradients(good)
        check_left_out(opt, [(np.array([1, bad, 1, 1]), v), good[1]], v, z)
        check_left_out(opt, [good[0], (np.array([1, 1, complex(0, bad)], np.complex64), z)], v, z)
    assert (opt.iterations, opt.skipped) == (3, 6)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_that_are_taken_have_the_same_bits_as_without(settings):
    rng = np.random.default_rng(0)
    one, two = ([np.ones(5), np.ones((3, 2), np.complex64), np.ones((7, 2))[::2]] for _ in range(2))
    plain, careful = RMSprop(0.1, **settings), RMSprop(0.1, nonfinite="skip", **settings)
    for k in range(6):
        gradients = [rng.standard_normal(v.shape).astype(v.dtype) for v in one]
        plain.apply_gradients(list(zip(gradients, one, strict=True)))
        if k % 2:
            spoilt = [*gradients[:2], np.full_like(gradients[2], np.nan)]
            careful.apply_gradients(list(zip(spoilt, two, strict=True)))
        careful.apply_gradients(list(zip(gradients, two, strict=True)))
    assert bits(plain, *one) == bits(careful, *two)
    assert careful.skipped == 3


@pytest.mark.parametrize("settings", [{}, {"global_clipnorm": 1.0}, {"state_dtype": "bfloat16"}], ids=str)
def test_sparse_and_strided_gradients_are_judged_too(settings):
    table, strided, scalar = np.ones((6, 2), np.float32), np.ones((4, 6), np.float32)[::2, ::-3], np.ones(())
    opt = RMSprop(nonfinite="skip", lazy=False, **settings)
    if "state_dtype" in settings:
        scalar = np.ones((), np.float32)
    variables = table, strided, scalar

    def step(**bad):
        values, dense, number = np.ones((3, 2), np.float32), np.ones((2, 2), np.float32), np.ones_like(scalar)
        for array, name in ((values, "table"), (dense, "strided"), (number, "scalar")):
            array[(-1,) * array.ndim] = bad.get(name, 1)
        return [(IndexedSlices(values, [5, 0, 5]), table), (dense, strided), (number, scalar)]

    opt.apply_gradients(step())
    for name in ("table", "strided", "scalar"):
        check_left_out(opt, step(**{name: np.inf}), *variables)
    opt.apply_gradients(step())
    assert (opt.iterations, opt.skipped) == (2, 3)


def test_the_large_gradient_of_many_threads_is_judged_in_all_of_its_parts():
    v = np.ones(600_000, np.float32)
    opt = RMSprop(nonfinite="raise")
    gradient = np.ones_like(v)
    opt.apply_gradients([(gradient, v)])
    for place in (0, 262_144, 599_999):
        gradient[:] = 1
        gradient[place] = np.inf
        with pytest.raises(FloatingPointError, match="variable 0"):
            opt.apply_gradients([(gradient, v)])


def test_raise_names_the_first_variable_and_changes_nothing():
    a, b, c = Variable(np.ones(2), name="a"), Variable(np.ones(2), name="b"), np.ones(3, np.float16)
    opt = RMSprop(nonfinite="raise", momentum=0.5)
    good, bad = np.ones(2), np.array([1, np.nan])
    opt.apply_gradients([(good, a), (good, b), (np.ones(3, np.float16), c)])
    before = bits(opt, a, b, c)
    for pairs, message in [
        ([(good, a), (bad, b), (np.full(3, np.inf, np.float16), c)], r"Gradient of variable 1 \('b', float64"),
        ([(good, a), (good, b), (np.full(3, np.inf, np.float16), c)], r"variable 2 \(float16, shape \(3,\)\)"),
        ([(bad, b)], r"variable 0 \('b'"),
        ([(bad, a), (bad, b)], r"variable 0 \('a'"),
        ([(np.full(3, np.inf, np.float16), c), (bad, b)], r"variable 0 \(float16"),
    ]:
        for _ in range(2):
            with pytest.raises(FloatingPointError, match=message):
                opt.apply_gradients(pairs)
            assert bits(opt, a, b, c) == before
    assert opt.skipped == 0


def test_propagate_is_the_default_and_does_as_keras():
    v = np.ones(2)
    opt = RMSprop()
    opt.apply_gradients([(np.array([np.nan, 1]), v)])
    assert np.isnan(v[0])
    assert (opt.iterations, opt.skipped) == (1, 0)


NORMS = [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1e308, "clipnorm": 1.0}]


@pytest.mark.parametrize("asarray", [np.asarray, array_api_strict.asarray], ids=["numpy", "array_api_strict"])
@pytest.mark.parametrize("settings", NORMS, ids=str)
def test_a_norm_counts_as_infinite_only_if_it_is_itself_beyond_its_dtype(settings, asarray):
    v, w = Variable(asarray(np.ones(2))), Variable(asarray(np.ones(4)))
    opt, largest = RMSprop(nonfinite="raise", **settings), asarray(np.full(4, 1e308))
    ones = asarray(np.ones(2))
    for taken in (1, 2):
        opt.apply_gradients([(ones, v), (asarray(np.full(4, 8e307)), w)])
        with pytest.raises(FloatingPointError, match="variable 1 .*norm beyond"):
            opt.apply_gradients([(ones, v), (largest, w)])
        assert opt.iterations == taken
    opt = RMSprop(nonfinite="raise")
    opt.apply_gradients([(largest, w)])
    assert opt.iterations == 1


def test_a_norm_of_all_that_is_beyond_its_dtype_counts_as_infinite_though_none_of_them_is():
    variables = [np.ones(1), np.ones(1), Variable(array_api_strict.ones(1))]
    gradients = [np.full(1, 1.2e308), np.full(1, 1.2e308), array_api_strict.asarray([1.2e308])]
    pairs = list(zip(gradients, variables, strict=True))
    for some in (pairs[:2], pairs[1:], pairs):  # of several libraries, too
        opt = RMSprop(nonfinite="raise", clipnorm=1.0)
        opt.apply_gradients(some)
        opt.clipnorm, opt.global_clipnorm = None, 1.0
        if len(some) == 2:  # 1.7e308
            opt.apply_gradients(some)
            continue
        with pytest.raises(FloatingPointError, match="variable 0 .*norm beyond"):
            opt.apply_gradients(some)


@pytest.mark.parametrize("settings", [{}, {"clipnorm": 1.0}, {"clipvalue": 1.0}], ids=str)
def test_other_libraries_and_mixed_lists_are_judged(settings):
    v, w, z = (Variable(array_api_strict.ones(2, dtype=getattr(array_api_strict, name)))
               for name in ("float64", "float32", "complex64"))  # fmt: skip
    n = np.ones(3)
    opt = RMSprop(nonfinite="skip", **settings)
    good = [(array_api_strict.ones_like(x.array), x) for x in (v, w, z)]
    opt.apply_gradients([*good, (np.ones(3), n)])
    bad = array_api_strict.asarray([1.0, np.nan], dtype=array_api_strict.float32)
    check_left_out(opt, [good[0], (bad, w), good[2]], v, w, z, n)
    check_left_out(opt, [*good, (np.full(3, np.inf), n)], v, w, z, n)
    rows = IndexedSlices(bad, array_api_strict.asarray([0, 1]))
    check_left_out(opt, [(np.ones(3), n), (rows, w)], v, w, z, n)
    opt.nonfinite = "raise"
    with pytest.raises(FloatingPointError, match="variable 1 "):
        opt.apply_gradients([(np.ones(3), n), (bad, w)])
    for pairs in ([(np.full(3, np.inf), n), (bad, w)], [(bad, w), (np.full(3, np.inf), n)]):
        with pytest.raises(FloatingPointError, match="variable 0 "):
            opt.apply_gradients(pairs)


def test_slots_are_created_before_a_device_decides_on_the_step(monkeypatch):
    def failing(*_):
        raise MemoryError

    judged, opt = [], RMSprop(nonfinite="skip")
    monkeypatch.setattr(take, "factored", lambda groups, hyper: judged.append(groups))
    monkeypatch.setattr(slots, "create", failing)
    with pytest.raises(MemoryError):
        opt.apply_gradients([(np.ones(2), np.ones(2))])
    assert not judged  # a device would have counted a step that is none


def test_what_transformers_return_is_judged_and_not_what_they_are_given():
    v = np.ones(2)
    bad = np.array([np.nan, 1.0])
    mend = RMSprop(nonfinite="raise", gradient_transformers=[lambda p: [(np.nan_to_num(g), w) for g, w in p]])
    mend.apply_gradients([(bad, v)])
    assert mend.iterations == 1
    spoil = RMSprop(nonfinite="skip", gradient_transformers=[lambda p: [(g / 0 * 0, w) for g, w in p]])
    with np.errstate(all="ignore"):
        spoil.apply_gradients([(np.ones(2), v)])
    assert (spoil.iterations, spoil.skipped) == (0, 1)


def test_minimize_leaves_out_a_loss_that_is_not_finite():
    v = Variable(np.zeros(2), name="v")
    opt = RMSprop(nonfinite="skip")
    with np.errstate(all="ignore"):
        opt.minimize(lambda: (1 / v).sum(), [v])
    assert (opt.iterations, opt.skipped) == (0, 1)
    assert (v.numpy() == 0).all()


def test_constraints_are_not_applied_in_a_step_that_is_left_out():
    v = Variable(np.full(2, -1.0), constraint=abs)
    opt = RMSprop(nonfinite="skip")
    opt.apply_gradients([(np.full(2, np.nan), v)])
    assert (v.numpy() == -1).all()


def test_a_step_that_is_left_out_does_not_move_a_schedule_on():
    seen = []

    class Recording(schedules.LearningRateSchedule):
        def __call__(self, step):
            seen.append(int(step))
            return 0.1

    v = np.ones(2)
    opt = RMSprop(Recording(), nonfinite="skip")
    for gradient in (1.0, np.nan, np.nan, 1.0):
        opt.apply_gradients([(np.full(2, gradient), v)])
    assert seen == [0, 1, 1, 1]


def test_the_setting_is_checked_changed_and_kept_by_copies():
    for value in ("ignore", None, True, 1, ["skip"]):
        with pytest.raises(ValueError, match="nonfinite must be 'propagate', 'skip' or 'raise'; given"):
            RMSprop(nonfinite=value)
    opt, v = RMSprop(nonfinite="skip"), np.ones(2)
    with pytest.raises(ValueError, match="nonfinite"):
        opt.nonfinite = "SKIP"
    opt.apply_gradients([(np.full(2, np.nan), v)])
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert (twin.nonfinite, twin.skipped) == ("skip", 1)
    config = json.loads(json.dumps(opt.get_config()))
    assert RMSprop.from_config(config).nonfinite == "skip"
    assert "nonfinite" not in RMSprop().get_config()
    opt.nonfinite = "raise"
    with pytest.raises(FloatingPointError):
        opt.apply_gradients([(np.full(2, np.nan), v)])
    opt.nonfinite = "propagate"
    opt.apply_gradients([(np.full(2, np.nan), v)])
    assert np.isnan(v).all()
