"""Gradients of windows in steps: with all settings as flat sparse ones, and refused before anything changes."""

import array_api_strict
import numpy as np
import pytest

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable, Windows, distribute, functional

LIBRARIES = {"NumPy": np.asarray, "a strict library": array_api_strict.asarray}
STARTS = [(0, 0), (1, 1), (3, 3)]
VALUES = np.random.default_rng(0).standard_normal((3, 2, 3))
START = np.random.default_rng(1).standard_normal((5, 6))

BAD = {
    "out of range": (VALUES, [(0, 0), (1, 1), (3, 4)], r"window 2 of shape \(2, 3\) starts at \(3, 4\).*\(5, 6\)"),
    "below zero": (VALUES, [(0, 0), (1, -1), (3, 3)], r"window 1 .* starts at \(1, -1\); starts must be >= 0"),
    "beyond all integers": (VALUES, np.full((3, 2), 2**64 - 1, np.uint64), "window 0 .* starts must be >= 0"),
    "beyond Python": (VALUES, [(2**70, 0)] * 3, "starts must be integers"),
    "too few": (VALUES, STARTS[:2], r"starts has shape \(2, 2\); expected \(3, 2\)"),
    "of one axis": (VALUES, [0, 1, 2], r"starts has shape \(3,\); expected \(3, 2\)"),
    "of different lengths": (VALUES, [(0, 0), (1,), (2, 2)], "starts must be integers, as many for each window"),
    "no integers": (VALUES, np.zeros((3, 2)), "starts must be integers; given dtype float64"),
    "booleans": (VALUES, np.zeros((3, 2), bool), "starts must be integers; given dtype bool"),
    "words": (VALUES, [("a", "b")] * 3, "starts must be integers"),
    "nothing": (VALUES, None, "starts must be an array of integers or slices; given None"),
    "masked": (VALUES, np.ma.zeros((3, 2), int), "starts is a numpy.*MaskedArray"),
    "slices of another length": (VALUES, [np.s_[0:2, 0:2]] * 3, r"starts\[0\] is .*; expected 2 slices"),
    "slices without bounds": (VALUES, [np.s_[:, 0:3]] * 3, r"starts\[0\] is .*; expected 2 slices"),
    "slices from the end": (VALUES, [np.s_[-3:-1, 0:3]] * 3, r"starts\[0\] is .* with bounds >= 0"),
    "slices with steps": (VALUES, [np.s_[0:4:2, 0:3]] * 3, r"starts\[0\] is .* and step 1"),
    "one slice too few": (VALUES, [np.s_[0:2]] * 3, r"starts\[0\] is .*; expected 2 slices"),
    "larger than the variable": (
        np.ones((1, 2, 7)),
        [(0, 0)],
        r"values has shape \(1, 2, 7\); expected \(n, \*patch",
    ),
    "flat": (np.ones((1, 2)), [(0, 0)], r"values has shape \(1, 2\); expected \(n, \*patch"),
    "complex": (VALUES * 1j, STARTS, "values has dtype complex128, which can't be cast to float64"),
}


@pytest.fixture(params=LIBRARIES)
def asarray(request):
    return LIBRARIES[request.param]


@pytest.mark.parametrize("what", BAD)
def test_bad_windows_are_refused_before_anything_changes(asarray, what):
    values, starts, message = BAD[what]
    v, opt = Variable(asarray(START.copy())), RMSprop(0.1, momentum=0.9)
    opt.apply_gradients([(Windows(asarray(VALUES), STARTS), v)])
    before = [v.numpy().copy(), *opt.get_weights()]
    with pytest.raises((TypeError, ValueError), match="(?s)Gradient of variable 0 .*" + message):
        opt.apply_gradients([(Windows(asarray(values), starts), v)])
    for a, b in zip(before, [v.numpy(), *opt.get_weights()], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("values", ["numbers", None, [[1.0], [1.0, 2.0]]], ids=str)
def test_values_that_are_no_array_are_refused(values):
    x, opt = START.copy(), RMSprop()
    with pytest.raises((TypeError, ValueError), match="Gradient of variable 0 .*values"):
        opt.apply_gradients([(Windows(values, STARTS), x)])
    np.testing.assert_array_equal(x, START)
    assert opt.iterations == 0


def test_a_shape_that_is_given_is_checked(asarray):
    v = Variable(asarray(START.copy()))
    RMSprop().apply_gradients([(Windows(asarray(VALUES), STARTS, (5, 6)), v)])
    with pytest.raises(ValueError, match=r"dense_shape is \(6, 5\); expected \(5, 6\)"):
        RMSprop().apply_gradients([(Windows(asarray(VALUES), STARTS, (6, 5)), v)])


def test_starts_of_another_library_are_refused():
    with pytest.raises(TypeError, match="starts must be an array of NumPy or numpy; given"):
        RMSprop().apply_gradients([(Windows(VALUES, array_api_strict.asarray(STARTS)), START.copy())])


def test_variables_with_a_constraint_or_without_axes_have_no_windows(asarray):
    v = Variable(asarray(START.copy()), constraint=lambda array: array)
    with pytest.raises(RuntimeError, match="has a constraint"):
        RMSprop().apply_gradients([(Windows(asarray(VALUES), STARTS), v)])
    with pytest.raises(ValueError, match="without axes"):
        windows = Windows(asarray(np.ones(1)), np.zeros((1, 0), int))
        RMSprop().apply_gradients([(windows, Variable(asarray(np.ones(()))))])


@pytest.mark.parametrize("form", ["slices", "lists", "small", "fortran", "of the library"])
def test_starts_may_have_any_form(asarray, form):
    starts = {
        "slices": [(slice(i, i + 2), slice(np.int64(j), j + 3, 1)) for i, j in STARTS],
        "lists": [list(start) for start in STARTS],
        "small": np.array(STARTS, np.uint8),
        "fortran": np.array(STARTS, np.int32, order="F"),
        "of the library": asarray(np.array(STARTS)),
    }[form]
    one, two = Variable(asarray(START.copy())), Variable(asarray(START.copy()))
    RMSprop(0.1).apply_gradients([(Windows(asarray(VALUES), STARTS), one)])
    RMSprop(0.1).apply_gradients([(Windows(asarray(VALUES), starts), two)])
    np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_slices_of_a_variable_with_one_axis_need_no_tuple():
    x = np.ones(5)
    RMSprop(0.1).apply_gradients([(Windows(np.ones((2, 2)), [slice(0, 2), slice(3, 5)]), x)])
    assert (x == 1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 3},
        {"loss_scale": LossScale, "nonfinite": "skip"},
        {"gradient_transformers": [lambda pairs: [(g, v) for g, v in pairs]]},
        {"bias_correction": True, "initial_accumulator": 1.0, "maximize": True, "epsilon_in_sqrt": True},
        {"use_ema": True, "ema_overwrite_frequency": 2},
    ],
    ids=lambda options: ", ".join(options),
)
def test_a_setting_does_what_it_does_with_the_flat_rows(asarray, options):
    found = []
    for shape in ((5, 6), (30,)):
        v, other = Variable(asarray(START.reshape(shape).copy())), Variable(asarray(np.ones(2)))
        opt = RMSprop(0.1, **{name: value() if value is LossScale else value for name, value in options.items()})
        opt.group([v], lr_mult=0.5)
        for k in range(6):
            windows = Windows(asarray(np.where(k == 4, np.inf, 1.0) * VALUES[k % 2 :]), STARTS[k % 2 :])
            gradient = windows if len(shape) == 2 else windows.indexed((5, 6))
            if k == 4 and "nonfinite" not in options:
                continue
            opt.apply_gradients([(gradient, v), (asarray(np.ones(2)), other)])
        found.append([v.numpy().reshape(-1), *[w.reshape(-1) for w in opt.get_weights()]])
        assert opt.skipped == (1 if "nonfinite" in options else 0)
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


def test_windows_that_are_not_finite_are_named(asarray):
    v, opt = Variable(asarray(START.copy())), RMSprop(nonfinite="raise")
    with pytest.raises(FloatingPointError, match="Gradient of variable 0 "):
        opt.apply_gradients([(Windows(asarray(VALUES * np.nan), STARTS), v)])
    np.testing.assert_array_equal(v.numpy(), START)


def test_a_loss_may_return_windows():
    x, opt = START.copy(), RMSprop(0.1)
    opt.minimize(lambda x: (float(np.sum(x)), [Windows(VALUES, STARTS)]), [x], jac=True)
    expected = START.copy()
    RMSprop(0.1).apply_gradients([(Windows(VALUES, STARTS), expected)])
    np.testing.assert_array_equal(x, expected)


def test_a_step_that_fails_puts_back_what_windows_have_changed(asarray):
    def broken(array):
        raise ValueError("broken")

    one, two = Variable(asarray(START.copy())), Variable(asarray(np.ones(2)), constraint=broken)
    with pytest.raises(ValueError, match="broken"):
        RMSprop().apply_gradients([(Windows(asarray(VALUES), STARTS), one), (asarray(np.ones(2)), two)])
    np.testing.assert_array_equal(one.numpy(), START)


def test_windows_are_refused_where_only_arrays_are_added_up():
    windows = Windows(VALUES, STARTS)
    with pytest.raises(TypeError, match="Windows can't be reduced; expected"):
        distribute.Strategy().reduce("sum", windows)
    opt = RMSprop()
    state = functional.init(opt, [START])
    with pytest.raises(TypeError, match="Gradient 0 must be an array of its parameter's library"):
        functional.update(opt, [windows], state, [START])


def test_indexed_lists_elements_window_by_window(asarray):
    slices = Windows(asarray(VALUES), [np.s_[0:2, 0:3], np.s_[1:3, 1:4], np.s_[3:5, 3:6]]).indexed((5, 6))
    assert type(slices) is IndexedSlices
    indices = np.asarray(slices.indices)
    assert indices.reshape(3, 6)[1].tolist() == [7, 8, 9, 13, 14, 15]
    np.testing.assert_array_equal(np.asarray(slices.values), VALUES.reshape(-1))
    assert slices.dense_shape == (30,)
    with pytest.raises(ValueError, match="window 2 .* lies inside of"):
        Windows(asarray(VALUES), STARTS).indexed((5, 5))
