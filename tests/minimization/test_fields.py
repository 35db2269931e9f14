"""Programs of the size of a notebook: a small model with its gradient, and what minimize makes of it.

Each gradient is compared with a central difference, and each result with that of the loop written by hand.
"""

import numpy as np
import pytest
from scipy.optimize import Bounds

from rmsprop import RMSprop, minimize
from rmsprop.schedules import CosineDecay


def assert_gradient(loss, x, *args, rtol=1e-6):
    """Compare the slope in a random direction with that of the gradient."""
    rng = np.random.default_rng(7)
    direction = rng.standard_normal(x.shape) + (1j * rng.standard_normal(x.shape) if np.iscomplexobj(x) else 0)
    h = 1e-5 * np.abs(x).max()
    slope = (loss(x + h * direction, *args)[0] - loss(x - h * direction, *args)[0]) / (2 * h)
    np.testing.assert_allclose(np.vdot(loss(x, *args)[1], direction).real, slope, rtol=rtol)


def by_hand(loss, x, batches, keep=None, **settings):
    """Take a step for each tuple of further arguments of the loss."""
    x, optimizer = x.copy(), RMSprop(**settings)
    for batch in batches:
        optimizer.apply_gradients([(loss(x, *batch)[1], x)])
        if keep is not None:
            x[...] = keep(x)
    return x


def test_phase_retrieval_within_bounds():
    """A real object between 0 and 1, beside a known bright pixel, from the moduli of its Fourier transform."""
    rng = np.random.default_rng(0)
    truth, low, high = np.zeros((32, 32)), np.zeros((32, 32)), np.zeros((32, 32))
    truth[2:12, 2:12] = rng.random((10, 10))
    truth[24, 22] = low[24, 22] = high[24, 22] = 10
    high[2:12, 2:12] = 1
    modulus = np.abs(np.fft.fft2(truth, norm="ortho"))

    def loss(x):
        field = np.fft.fft2(x, norm="ortho")
        wrong = np.abs(field) - modulus
        return np.sum(wrong**2), 2 * np.fft.ifft2(wrong * np.exp(1j * np.angle(field)), norm="ortho").real

    x0, rate = (low + high) / 2, CosineDecay(0.02, 300)
    assert_gradient(loss, x0 + 0.1 * rng.random(x0.shape))
    result = minimize(loss, x0, jac=True, bounds=Bounds(low, high), learning_rate=rate, steps=300)
    assert np.linalg.norm(result.x - truth) < 0.02 * np.linalg.norm(truth)
    x = by_hand(loss, x0, [()] * 300, lambda x: np.clip(x, low, high), learning_rate=rate)
    np.testing.assert_array_equal(result.x, x)


def test_tomography_by_subsets_of_angles_that_is_not_negative():
    """Absorption in 24 x 24 pixels, from 30 projections in 10 subsets."""
    size, angles, bins = 24, np.pi * np.arange(30) / 30, 36
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2).reshape(2, -1)
    place = np.outer(np.cos(angles), x) + np.outer(np.sin(angles), y) + (bins - 1) / 2
    rays = np.maximum(0, 1 - np.abs(np.arange(bins)[None, :, None] - place[:, None, :]))
    truth = 1.0 * (np.hypot(x - 2, y + 1) < 8) - 0.6 * (np.hypot(x - 3, y - 1) < 3)
    data = rays @ truth

    def loss(x, subset):
        wrong = rays[subset] @ x - data[subset]
        return np.sum(wrong**2) / 2, np.einsum("abp,ab->p", rays[subset], wrong)

    x0, subsets, rate = np.zeros(size**2), [slice(k, None, 10) for k in range(10)], CosineDecay(0.05, 600)
    assert_gradient(loss, x0 + truth + 1, subsets[3])
    result = minimize(loss, x0, jac=True, bounds=(0, None), batches=subsets, epochs=60, learning_rate=rate)
    assert np.linalg.norm(result.x - truth) < 0.05 * np.linalg.norm(truth)
    assert result.x.min() >= 0
    steps = [(subset,) for _ in range(60) for subset in subsets]
    x = by_hand(loss, x0, steps, lambda x: np.maximum(x, 0), learning_rate=rate)
    np.testing.assert_array_equal(result.x, x)


PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


def test_a_pulse_of_complex_controls_that_inverts_a_two_level_system_whatever_its_detuning():
    """GRAPE: 20 intervals of constant control, whose real and imaginary part turn about x and y; 5 detunings."""
    count, dt, detunings = 20, 0.25, np.linspace(-0.6, 0.6, 5)

    def loss(u):
        a = np.stack(np.broadcast_arrays(u.real[:, None], u.imag[:, None], detunings / 2), -1)
        r = np.linalg.norm(a, axis=-1)[..., None, None]
        c, s, turn = np.cos(dt * r), np.sin(dt * r) / r, np.einsum("...i,iab->...ab", a, PAULI)
        gates = c * np.eye(2) - 1j * s * turn
        after, before = [np.tile([1 + 0j, 0], (5, 1))], [np.tile([0, 1 + 0j], (5, 1))]
        for gate, back in zip(gates, gates[::-1], strict=True):
            after.append(np.einsum("dab,db->da", gate, after[-1]))
            before.append(np.einsum("dab,da->db", back, before[-1]))
        overlap = after[-1][:, 1]
        slopes = []
        for i in (0, 1):
            along = a[..., i, None, None] / r
            change = -dt * s * r * along * np.eye(2) - 1j * (along * (dt * c - s) / r * turn + s * PAULI[i])
            moved = np.einsum("kda,kdab,kdb->kd", before[-2::-1], change, after[:-1])
            slopes.append(-2 * np.real(np.conj(overlap) * moved).mean(1))
        return 1 - np.mean(np.abs(overlap) ** 2), slopes[0] + 1j * slopes[1]

    def at_most_2(u):
        return u / np.maximum(1, np.abs(u) / 2)

    x0, rate = np.exp(0.3j * np.arange(count)), CosineDecay(0.05, 200)
    assert_gradient(loss, x0)
    result = minimize(loss, x0, jac=True, projection=at_most_2, learning_rate=rate, steps=200)
    assert loss(x0)[0] > 0.1
    assert result.fun < 1e-3
    assert np.abs(result.x).max() < 2 + 1e-12
    np.testing.assert_array_equal(result.x, by_hand(loss, x0, [()] * 200, at_most_2, learning_rate=rate))


@pytest.mark.parametrize("form", ["phase", "complex"])
def test_a_hologram_of_phases_only(form):
    """A ring in the far field of 32 x 32 pixels that change the phase of light; the surroundings are free."""
    y, x = np.mgrid[:32, :32] - 16
    window = np.fft.ifftshift((abs(x) < 8) & (abs(y) < 8))
    wanted = np.fft.ifftshift(1.0 * (abs(np.hypot(x, y) - 5) < 1.5))
    wanted *= np.sqrt(0.8 * 32**2 / np.sum(wanted**2))

    def of_field(field):
        far = np.fft.fft2(field, norm="ortho")
        wrong = window * (np.abs(far) - wanted)
        return np.sum(wrong**2), 2 * np.fft.ifft2(wrong * np.exp(1j * np.angle(far)), norm="ortho")

    def of_phase(phase):
        field = np.exp(1j * phase)
        value, gradient = of_field(field)
        return value, np.imag(np.conj(field) * gradient)

    def unit(field):
        return field / np.abs(field)

    x0, rate = 6 * np.random.default_rng(0).random((32, 32)), CosineDecay(0.1, 300)
    loss, x0, keep = (of_phase, x0, None) if form == "phase" else (of_field, np.exp(1j * x0), unit)
    assert_gradient(loss, x0)
    result = minimize(loss, x0, jac=True, projection=keep, learning_rate=rate, steps=300)
    assert result.fun < 1e-3 * np.sum(wanted**2)
    np.testing.assert_array_equal(result.x, by_hand(loss, x0, [()] * 300, keep, learning_rate=rate))


def test_waveform_inversion_with_shots_that_are_drawn_anew_in_each_epoch():
    """Velocities of sound along a line of 50 points from 12 shots among 17 receivers."""
    size, times, dt, shots, receivers = 50, 100, 0.25, np.arange(3, 50, 4), np.arange(1, 50, 3)
    pulse = np.array([(1 - 0.5 * (dt * n - 4) ** 2) * np.exp(-0.25 * (dt * n - 4) ** 2) for n in range(times)])
    x = np.arange(size)
    truth = 2 + 0.5 * np.exp(-(((x - 18) / 4) ** 2)) - 0.4 * np.exp(-(((x - 34) / 5) ** 2))

    def bent(u):
        """Return second differences, with zeros beyond both ends; they are their own adjoint."""
        out = -2 * u
        out[:, 1:] += u[:, :-1]
        out[:, :-1] += u[:, 1:]
        return out

    def waves(velocity, chosen):
        """Return waves, and what accelerates them, of the shots that are chosen."""
        now, last, all_waves, forces = np.zeros((len(chosen), size)), 0, [], []
        for strength in pulse:
            force = bent(now)
            force[np.arange(len(chosen)), shots[chosen]] += strength
            now, last = 2 * now - last + (dt * velocity) ** 2 * force, now
            all_waves.append(now)
            forces.append(force)
        return np.array(all_waves), forces

    data = waves(truth, np.arange(12))[0][:, :, receivers]

    def loss(velocity, chosen):
        found, forces = waves(velocity, chosen)
        wrong = found[:, :, receivers] - data[:, chosen]
        after = later = gradient = 0
        for residual, force in zip(wrong[::-1], forces[::-1], strict=True):
            back = 2 * after - later + (bent((dt * velocity) ** 2 * after) if np.ndim(after) else 0)
            back = back + np.zeros((len(chosen), size))
            back[:, receivers] += residual
            gradient, after, later = gradient + np.sum(back * force, 0), back, after
        return np.sum(wrong**2) / 2, 2 * dt**2 * velocity * gradient

    def three_shots(epoch):
        return np.random.default_rng(epoch).permutation(12).reshape(4, 3)

    x0, rate = np.full(size, 2.0), CosineDecay(0.03, 80)
    assert_gradient(loss, x0 + 0.1 * np.sin(x), np.array([0, 5, 11]))
    result = minimize(loss, x0, jac=True, bounds=(1, 3.5), batches=three_shots, epochs=20, learning_rate=rate)
    assert np.linalg.norm(result.x - truth) < 0.2 * np.linalg.norm(x0 - truth)
    steps = [(chosen,) for epoch in range(20) for chosen in three_shots(epoch)]
    x = by_hand(loss, x0, steps, lambda x: np.clip(x, 1, 3.5), learning_rate=rate)
    np.testing.assert_array_equal(result.x, x)
