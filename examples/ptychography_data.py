"""The experiment of `ptychography.py`, simulated: an object, a probe, and diffraction patterns with noise."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from skimage import color, data, transform

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray

PIXEL = 0.1  # width of a pixel of the object, in micrometres
PHOTONS = 1e7  # per diffraction pattern


class Scan(NamedTuple):
    """What an experiment delivers: where the probe was, and how much light the camera saw.

    Moduli are the square roots of counted photons, divided by that of `photons`, which makes the mean square of
    the probe one. Corners are those at the upper left of the patches that the probe has lit, shape (n, 2).
    """

    corners: Array
    moduli: Array
    photons: float


def photograph(image: Array, size: int) -> Array:
    """Return a photograph as a square of grey values from 0 to 1."""
    grey = color.rgb2gray(image) if image.ndim == 3 else image
    square = transform.resize(grey, (size, size), anti_aliasing=True)
    return (square - square.min()) / np.ptp(square)


def make_object(size: int, frame: int) -> Array:
    """Return a transmission in a clear frame: the cameraman absorbs light, the astronaut delays it."""
    amplitude = 0.3 + 0.7 * photograph(data.camera(), size - 2 * frame)
    phase = 2 / 3 * np.pi * (photograph(data.astronaut(), size - 2 * frame) - 0.5)
    return np.pad(amplitude * np.exp(1j * phase), frame, constant_values=1).astype(np.complex64)


def make_probe(n: int, defocus: float, astigmatism: float = 0.0) -> Array:
    """Return the beam of a lens with a round aperture.

    The aberrations are the distances by which light from the rim of the lens misses the focus, over n.
    """
    radius = 0.19 * n
    y, x = (np.mgrid[:n, :n] - n // 2) / radius
    aperture = 1 / (1 + np.exp((np.hypot(y, x) - 1) * n / 4))
    aberration = defocus * (x**2 + y**2) + astigmatism * (x**2 - y**2 + x * y)
    to_focus = fourier_matrix(n).conj()
    probe = to_focus @ (aperture * np.exp(1j * np.pi * radius * aberration)) @ to_focus.T
    return (probe / np.sqrt(np.mean(np.abs(probe) ** 2))).astype(np.complex64)


def scan_corners(size: int, n: int, rng: np.random.Generator) -> Array:
    """Return the upper left corners of the patches, jittered because a regular grid leaves raster artefacts."""
    line = np.linspace(0, size - n, round((size - n) / (0.2 * n)) + 1)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    jittered = np.rint(grid + rng.uniform(-0.05 * n, 0.05 * n, grid.shape))
    return jittered.clip(0, size - n).astype(int)


def measure(obj: Array, probe: Array, corners: Array, rng: np.random.Generator) -> Scan:
    """Return a scan with Poisson noise."""
    fourier = fourier_matrix(len(probe))
    intensities = np.abs(fourier @ (probe * cut(np, obj, corners, len(probe))) @ fourier.T) ** 2
    photons = PHOTONS / float(intensities.sum(axis=(1, 2)).mean())
    return Scan(corners, np.sqrt(rng.poisson(intensities * photons) / photons).astype(np.float32), photons)


def fourier_matrix(n: int) -> Array:
    """Return F of the unitary transform F @ x @ F.T, which for small images is faster than an FFT."""
    k = np.arange(n) - n // 2
    return (np.exp(-2j * np.pi / n * np.outer(k, k)) / np.sqrt(n)).astype(np.complex64)


def cut(xp: Any, obj: Array, corners: Array, n: int) -> Array:
    """Return the n-by-n patches of the object at the corners."""
    rows, columns = xp.asarray(corners).T
    return xp.lib.stride_tricks.sliding_window_view(obj, (n, n))[rows, columns]


def dose(probe: Array, corners: Array, size: int) -> Array:
    """Return how much light each pixel of the object has received in all."""
    total, n = np.zeros((size, size)), len(probe)
    for y, x in corners:
        total[y : y + n, x : x + n] += np.abs(probe) ** 2
    return total
