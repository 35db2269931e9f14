"""Smaller state: the averages of rows that are listed now and then, and what is not finite or tiny."""

import numpy as np
import pytest

from rmsprop import RMSprop
from rmsprop_numba.compact import CompactSlot

each_state = pytest.mark.parametrize("state_dtype", ["bfloat16", "uint8"])
VARIANTS = [{}, {"momentum": 0.9}, {"momentum": 0.9, "centered": True}]


@each_state
@pytest.mark.parametrize("period", [1, 2, 7, 72])
@pytest.mark.parametrize("kind", ["constant", "rare"])
def test_rounding_has_no_bias_however_many_steps_lie_between_two_updates(state_dtype, period, kind):
    rng = np.random.default_rng(0)
    size = np.exp(rng.standard_normal(8192)).astype(np.float32)
    full, small = RMSprop(rho=0.9), RMSprop(rho=0.9, state_dtype=state_dtype)
    a, b = np.zeros_like(size), np.zeros_like(size)
    errors = []
    for step in range(60):
        gradient = size if kind == "constant" else size * (rng.random(size.size) < 0.05)
        small.iterations.assign(step * period)
        full.apply_gradients([(gradient, a)])
        small.apply_gradients([(gradient, b)])
        exact, kept = (o.get_slot(v, "rms").numpy() for o, v in ((full, a), (small, b)))
        errors.append(np.mean(kept[exact > 1e-20] / exact[exact > 1e-20]) - 1)
    assert abs(np.mean(errors[20:])) < 0.005
    assert np.max(np.abs(errors[20:])) < 0.015


@each_state
def test_rounding_goes_another_way_in_each_step_also_for_the_first_element(state_dtype):
    gradients = np.exp(np.random.default_rng(0).standard_normal((100, 1))).astype(np.float32)
    opt, variables = RMSprop(rho=0.9, state_dtype=state_dtype), list(np.zeros_like(gradients))
    history = []
    for _ in range(120):
        opt.apply_gradients(zip(gradients, variables, strict=True))
        history.append(np.concatenate([opt.get_slot(v, "rms").numpy() for v in variables]))
    assert np.mean(np.std(history[80:], axis=0) > 0) > 0.4  # others have come to a number that has a code


@each_state
@pytest.mark.parametrize("settings", VARIANTS)
def test_what_is_nan_or_infinite_with_full_state_is_so_with_smaller_state(state_dtype, settings):
    v, w = np.zeros(100, np.float32), np.zeros(100, np.float32)
    small, full = RMSprop(0.01, state_dtype=state_dtype, **settings), RMSprop(0.01, **settings)
    good = np.linspace(1, 2, 100, dtype=np.float32)
    bad = good.copy()
    bad[[3, 4, 5, 8]] = np.nan, np.inf, 1e30, -np.inf
    bad[7] = np.uint32(0xFFFFFFFF).view(np.float32)  # a NaN that rounding could carry to zero
    with np.errstate(all="ignore"):
        for gradient in (good, bad, good):
            small.apply_gradients([(gradient, v)])
            full.apply_gradients([(gradient, w)])
    pairs = [(v, w), *zip(small.get_weights()[1:], full.get_weights()[1:], strict=True)]
    for kept, exact in pairs:
        np.testing.assert_array_equal(np.isnan(kept), np.isnan(exact))
        np.testing.assert_array_equal(np.isinf(kept), np.isinf(exact))


def test_8_bits_serve_subnormal_blocks_of_averages_exactly_or_within_a_sixteenth():
    numbers = np.array([0, 1, 2, 5, 15, 100, 12_345], np.float32) * np.finfo(np.float32).smallest_subnormal
    stored = CompactSlot(numbers.shape, np.float32, "uint8", False, "slot").assign(numbers).numpy()
    np.testing.assert_array_equal(stored[:5], numbers[:5])
    np.testing.assert_allclose(stored, numbers, rtol=1 / 16, atol=0)
