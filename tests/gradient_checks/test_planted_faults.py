"""Thirty losses of the field, each with a fault in its gradient, in four dtypes: the verdict names the fault."""

from collections import Counter

import numpy as np
import pytest

from rmsprop import check_gradients

DOUBLE, SINGLE = ["float64", "complex128"], ["float32", "complex64"]

# Linear operators: functions that return (A, the adjoint of A) for arrays like `x`.


def matrix(rng, x, rows=30):
    a = numbers(rng, (rows, x.size), x.dtype) / x.real.dtype.type(x.size**0.5)
    return (lambda v: a @ v.reshape(-1)), (lambda r: (a.conj().T @ r).reshape(x.shape))


def fourier(rng, x):
    return (lambda v: np.fft.fftn(v, norm="ortho")), (lambda r: np.fft.ifftn(r, norm="ortho"))


def masked_fourier(rng, x):
    mask = rng.integers(0, 2, x.shape).astype(x.real.dtype)
    return (lambda v: mask * np.fft.fftn(v, norm="ortho")), (lambda r: np.fft.ifftn(mask * r, norm="ortho"))


def illuminated(rng, x):
    """Return the far field of an object behind a probe."""
    probe = numbers(rng, x.shape, complex_of(x.dtype))
    return (
        lambda v: np.fft.fftn(probe * v, norm="ortho"),
        lambda r: probe.conj() * np.fft.ifftn(r, norm="ortho"),
    )


def propagated(rng, x):
    """Return the near field of an object, by Fresnel's propagator."""
    axes = np.meshgrid(*[np.fft.fftfreq(n) for n in x.shape], indexing="ij")
    kernel = np.exp(-9j * sum(axis**2 for axis in axes)).astype(complex_of(x.dtype))
    return (
        lambda v: np.fft.ifftn(kernel * np.fft.fftn(v)),
        lambda r: np.fft.ifftn(kernel.conj() * np.fft.fftn(r)),
    )


def blurred(rng, x):
    return (
        lambda v: v + 0.5 * np.roll(v, 1, 0) + 0.25 * np.roll(v, 2, 0),
        lambda r: r + 0.5 * np.roll(r, -1, 0) + 0.25 * np.roll(r, -2, 0),
    )


def differences(rng, x):
    return (lambda v: np.roll(v, -1, 0) - v), (lambda r: np.roll(r, 1, 0) - r)


def projected(rng, x):
    """Return the sums of rows and columns."""
    n, m = x.shape
    return (
        lambda v: np.concatenate([v.sum(0), v.sum(1)]),
        lambda r: r[None, :m] + r[m:, None] + np.zeros((n, m), r.dtype),
    )


def summed(rng, x):
    return (lambda v: np.cumsum(v, 0)), (lambda r: np.flip(np.cumsum(np.flip(r, 0), 0), 0))


# Penalties: functions of what is measured that return (value, dL/dRe + i dL/dIm) of some field `r`.


def squares(r, data):
    e = r - data
    return np.sum(np.abs(e) ** 2), 2 * e


def intensities(r, data):
    e = np.abs(r) ** 2 - np.abs(data) ** 2
    return np.sum(e**2), 4 * e * r


def amplitudes(r, data):
    a = np.sqrt(np.abs(r) ** 2 + r.real.dtype.type(1e-3))
    e = a - np.abs(data)
    return np.sum(e**2), 2 * e / a * r


def total_variation(r, data):
    a = np.sqrt(np.abs(r) ** 2 + r.real.dtype.type(0.01))
    return np.sum(a), r / a


def cauchy(r, data):
    e = r - data
    return np.sum(np.log1p(np.abs(e) ** 2)), 2 * e / (1 + np.abs(e) ** 2)


def poisson(r, data):
    i, n = np.abs(r) ** 2 + r.real.dtype.type(0.1), np.abs(data) ** 2
    return np.sum(i - n * np.log(i)), 2 * r * (1 - n / i)


def logistic(r, data):
    s = np.sign(data.real)
    return np.sum(np.log1p(np.exp(-s * r.real))), -s / (1 + np.exp(s * r.real)) + 0 * r


def huber(r, data):
    e = r - data
    a = np.sqrt(1 + np.abs(e) ** 2)
    return np.sum(a - 1), e / a


def quartic(r, data):
    return np.sum(np.abs(r) ** 4), 4 * np.abs(r) ** 2 * r


def waves(r, data):
    u, v = r.real, r.imag
    return np.sum(np.sin(u) * np.cos(v)), like(np.cos(u) * np.cos(v) - 1j * np.sin(u) * np.sin(v), r)


def composed(operator, penalty, shape=(6, 5)):
    """Return a builder of the loss `penalty(A x)`."""

    def build(rng, dtype):
        x = numbers(rng, shape, dtype)
        forward, adjoint = operator(rng, x)
        data = forward(numbers(rng, shape, dtype))

        def loss(x):
            value, slope = penalty(forward(x), data)
            return value, like(adjoint(slope.astype(data.dtype)), x)

        return loss, x

    return build


# Others


def rosenbrock(rng, dtype):
    def loss(x):
        a, b = x[1:] - x[:-1] ** 2, 1 - x[:-1]
        g = np.zeros_like(x)
        g[1:] += 20 * a
        g[:-1] += -40 * a * x[:-1].conj() - 2 * b
        return np.sum(10 * np.abs(a) ** 2 + np.abs(b) ** 2), g

    return loss, numbers(rng, (8,), dtype)


def rayleigh(rng, dtype):
    a = numbers(rng, (9, 9), dtype)
    a = a + a.conj().T

    def loss(x):
        n, v = np.vdot(x, x).real, a @ x
        q = np.vdot(x, v).real / n
        return q, (2 * v - 2 * q * x) / n

    return loss, numbers(rng, (9,), dtype)


def log_partition(rng, dtype):
    a = numbers(rng, (12, 7), dtype)

    def loss(x):
        e = np.exp((a @ x).real)
        return np.log(np.sum(e)), a.conj().T @ (e / np.sum(e))

    return loss, numbers(rng, (7,), dtype)


def two_layers(rng, dtype):
    a, b = numbers(rng, (6, 4), dtype), numbers(rng, (6,), dtype).real

    def loss(x):
        h = np.tanh((a @ x).real)
        return np.sum((h - b) ** 2), a.conj().T @ (2 * (h - b) * (1 - h**2))

    return loss, numbers(rng, (4,), dtype)


def phase_hologram(rng, dtype):
    target = np.abs(numbers(rng, (6, 6), dtype)) ** 2

    def loss(x):
        field = np.exp(1j * x.real - x.imag**2)
        far = np.fft.fft2(field, norm="ortho")
        e = np.abs(far) ** 2 - target
        back = np.conj(field) * np.fft.ifft2(4 * e * far, norm="ortho")
        return np.sum(e**2), like(back.imag - 2j * x.imag * back.real, x)

    return loss, numbers(rng, (6, 6), dtype)


def low_rank(rng, dtype):
    y, m = numbers(rng, (3, 6), dtype), numbers(rng, (5, 6), dtype)

    def loss(x):
        e = x @ y - m
        return np.sum(np.abs(e) ** 2), 2 * e @ y.conj().T

    return loss, numbers(rng, (5, 3), dtype)


def numbers(rng, shape, dtype):
    """Return normal numbers."""
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def complex_of(dtype):
    return np.result_type(dtype, np.complex64)


def like(gradient, x):
    """Return a gradient in the dtype of the variable."""
    return (gradient if np.iscomplexobj(x) else np.real(gradient)).astype(x.dtype)


# Faults: functions of the true gradient and of the place, with the word and the scale of the verdict.


def times(scale):
    word = "scaled" if scale > 0 else "negative"
    return (lambda g, x: scale * g), word, scale


def conjugate(scale):
    return (lambda g, x: scale * g.conj()), "conjugate", scale


def times_i(scale):
    return (lambda g, x: 1j * scale * g), "times i", scale


def real_part(scale):
    return (lambda g, x: scale * g.real), "real part", scale


def changed(function):
    return function, "wrong", None


def element(factor):
    """Return the fault that one element is wrong."""

    def fault(g, x):
        g = g.copy()
        g.reshape(-1)[np.argmax(np.abs(g))] *= factor
        return g

    return changed(fault)


MODULUS = changed(lambda g, x: np.abs(g))
ZERO = (lambda g, x: 0 * g), "zero", 0.0
NORMED = (lambda g, x: g / np.linalg.norm(g)), "scaled", "1 / norm"

PLANTED = {  # loss, fault of the real gradient, fault of the complex one
    "least squares without its 2": (composed(matrix, squares), times(0.5), times(0.5)),
    "phase retrieval": (composed(matrix, intensities), times(2.0), times(2.0)),
    "ptychography": (composed(illuminated, amplitudes), times(0.25), conjugate(1.0)),
    "ptychography of intensities": (composed(illuminated, intensities), times(-1.0), conjugate(0.5)),
    "far field": (composed(fourier, amplitudes), times(30.0), times(30.0)),
    "magnetic resonance": (composed(masked_fourier, squares), times(1 / 30), times(1 / 30)),
    "hologram": (composed(propagated, intensities), ZERO, conjugate(2.0)),
    "hologram of amplitudes": (composed(propagated, amplitudes), times(-0.5), times_i(1.0)),
    "total variation": (composed(differences, total_variation), changed(lambda g, x: g + 0.1 * x), ZERO),
    "total variation in one image": (composed(differences, total_variation), element(0.0), element(0.0)),
    "deconvolution": (composed(blurred, poisson), changed(lambda g, x: np.roll(g, 1, 0)), times(-1.0)),
    "robust deconvolution": (composed(blurred, huber), element(2.0), element(1j)),
    "tomography": (composed(projected, squares), times(-2.0), real_part(1.0)),
    "robust tomography": (composed(projected, cauchy), changed(lambda g, x: g.T.reshape(g.shape)), real_part(0.5)),
    "emission tomography": (composed(projected, poisson), changed(np.multiply), times(0.1)),
    "seismic traces": (composed(summed, squares), changed(lambda g, x: g[::-1]), changed(lambda g, x: g[::-1])),
    "robust traces": (composed(summed, huber), times(1e-3), times(1e-3)),
    "student": (composed(matrix, cauchy), changed(lambda g, x: np.sign(g)), changed(lambda g, x: g / np.abs(g))),
    "logistic": (composed(matrix, logistic), times(3.0), times(3.0)),
    "counts": (composed(matrix, poisson), NORMED, NORMED),
    "quartic": (composed(matrix, quartic), changed(lambda g, x: g**2), conjugate(-1.0)),
    "waves": (composed(matrix, waves), times_i(1.0), times_i(-1.0)),
    "far waves": (composed(fourier, waves), times_i(-0.5), times_i(0.5)),
    "robust far field": (
        composed(fourier, cauchy),
        changed(lambda g, x: np.abs(g)),
        changed(lambda g, x: np.abs(g)),
    ),
    "rosenbrock": (rosenbrock, changed(lambda g, x: g - 2 * (1 - x)), changed(lambda g, x: g - 2 * (1 - x))),
    "rayleigh quotient": (rayleigh, changed(lambda g, x: g + x), changed(lambda g, x: g + x)),
    "log-partition": (log_partition, times(-1e-2), conjugate(0.5)),
    "two layers": (two_layers, element(-1.0), element(-1.0)),
    "phase hologram": (phase_hologram, changed(lambda g, x: g * np.cos(x)), real_part(2.0)),
    "low rank": (low_rank, times(1e3), changed(lambda g, x: g.real * 1j + g.imag * 2)),
}


def drawn(name, dtype, seed=0):
    """Return a loss with its fault, one without, where to check it, and the verdict that is due."""
    build, *faults = PLANTED[name]
    loss, x = build(np.random.default_rng([*name.encode(), seed]), np.dtype(dtype))
    fault, word, scale = faults[x.dtype.kind == "c"]

    def faulty(x):
        value, g = loss(x)
        return value, np.asarray(fault(g, x), np.result_type(x.dtype, np.complex64) if word == "times i" else None)

    if scale == "1 / norm":
        scale = 1 / np.linalg.norm(loss(x)[1])
    return faulty, loss, x, word, scale


def test_there_are_thirty():
    assert len(PLANTED) == 30


@pytest.mark.parametrize("dtype", DOUBLE)
@pytest.mark.parametrize("name", PLANTED)
def test_the_fault_is_named_in_double_precision(name, dtype):
    faulty, _, x, word, scale = drawn(name, dtype)
    result = check_gradients(faulty, x)
    assert result.verdicts == word
    assert not result.success
    if scale is None:
        assert np.isnan(result.scales)
    else:
        assert result.scales == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("dtype", DOUBLE)
@pytest.mark.parametrize("name", PLANTED)
def test_the_gradient_without_the_fault_is_right(name, dtype):
    _, loss, x, _, _ = drawn(name, dtype)
    assert check_gradients(loss, x, raise_on_failure=True).verdicts == "right"


@pytest.mark.parametrize("dtype", SINGLE)
def test_faults_are_named_or_unclear_in_single_precision_at_most_a_tenth_of_these(dtype):
    found = Counter()
    for name in PLANTED:
        faulty, loss, x, word, _ = drawn(name, dtype)
        assert loss(x)[0].dtype == x.real.dtype
        for each, due in ((faulty, word), (loss, "right")):
            verdict = check_gradients(each, x).verdicts
            assert verdict in (due, "unclear"), name
            found[verdict == "unclear"] += 1
    assert found[True] <= 0.1 * found.total()
