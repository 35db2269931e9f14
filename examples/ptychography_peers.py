"""The field's own methods for blind ptychography, on the same data as RMSprop: ePIE and mPIE.

Both correct object and probe after each diffraction pattern by what is missing in the light behind the object.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from ptychography_data import Array, Scan, fourier_matrix


class Reconstruction(NamedTuple):
    """An object and its probe, and the mean loss of each epoch on the way there."""

    object: Array
    probe: Array
    losses: Array


Visit = Callable[[Array, Array, tuple[slice, slice], Array], None]
"""Corrects an object and a probe in place, given where the probe is, and what is missing behind the object."""


def epie(scan: Scan, obj: Array, probe: Array, epochs: int, seed: int) -> Reconstruction:
    """Return the result of the extended ptychographical engine.

    A. M. Maiden and J. M. Rodenburg, "An improved ptychographical phase retrieval algorithm for diffractive
    imaging", Ultramicroscopy 109, 1256 (2009), with both step sizes 1.
    """

    def visit(obj: Array, probe: Array, spot: tuple[slice, slice], missing: Array) -> None:
        patch = obj[spot].copy()
        obj[spot] += probe.conj() * missing / np.max(np.abs(probe) ** 2)
        probe += patch.conj() * missing / np.max(np.abs(patch) ** 2)

    return _run(scan, obj, probe, epochs, np.random.default_rng(seed), visit)


def mpie(scan: Scan, obj: Array, probe: Array, epochs: int, seed: int) -> Reconstruction:
    """Return the result of the regularised engine with momentum.

    A. Maiden, D. Johnson and P. Li, "Further improvements to the ptychographical iterative engine", Optica 4, 736
    (2017), with the step sizes, regularisation and momentum that PtyLab has by default.
    """
    step, alpha, friction, feedback = 0.25, 0.1, 0.7, 0.3
    rng = np.random.default_rng(seed)
    velocities, earlier = [np.zeros_like(obj), np.zeros_like(probe)], [obj.copy(), probe.copy()]

    def weight(wave: Array) -> Array:
        power = np.abs(wave) ** 2
        return step * wave.conj() / (alpha * power.max() + (1 - alpha) * power)

    def visit(obj: Array, probe: Array, spot: tuple[slice, slice], missing: Array) -> None:
        patch = obj[spot].copy()
        obj[spot] += weight(probe) * missing
        probe += weight(patch) * missing
        if rng.random() > 0.95:  # every twentieth visit, on average
            for k, wave in enumerate((obj, probe)):
                velocities[k] = friction * velocities[k] + earlier[k] - wave
                wave -= feedback * velocities[k]
                earlier[k] = wave.copy()

    return _run(scan, obj, probe, epochs, rng, visit)


def _run(
    scan: Scan, obj: Array, probe: Array, epochs: int, rng: np.random.Generator, visit: Visit
) -> Reconstruction:
    obj, probe = obj.copy(), probe.copy()
    losses = [np.mean(list(_epoch(scan, obj, probe, rng, visit))) for _ in range(epochs)]
    return Reconstruction(obj, probe, np.array(losses))


def _epoch(scan: Scan, obj: Array, probe: Array, rng: np.random.Generator, visit: Visit) -> Iterator[float]:
    """Visit all spots in random order; yield the loss at each."""
    n, fourier = len(probe), fourier_matrix(len(probe))
    for i in rng.permutation(len(scan.corners)):
        y, x = scan.corners[i]
        spot = slice(y, y + n), slice(x, x + n)
        wave = fourier @ (probe * obj[spot]) @ fourier.T
        modulus = np.abs(wave)
        yield float(np.sum((modulus - scan.moduli[i]) ** 2))
        wave *= scan.moduli[i] / (modulus + 1e-9) - 1
        visit(obj, probe, spot, fourier.conj() @ wave @ fourier.conj().T)
