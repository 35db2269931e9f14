"""The judgement of `ptychography.py`: errors against the truth, a figure, and a table."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, hsv_to_rgb
from matplotlib.figure import Figure
from ptychography_data import PIXEL, Array, Scan, fourier_matrix
from ptychography_peers import Reconstruction
from scipy import ndimage, optimize

FIGURE, TABLE = "ptychography.png", "ptychography.csv"
COLORS = {"RMSprop": "tab:red", "mPIE": "tab:blue", "ePIE": "tab:gray"}


class Judgement(NamedTuple):
    """All that is shown: of each method its result, the object aligned with the truth, and its error."""

    scan: Scan
    truth: dict[str, Array]
    results: dict[str, Reconstruction]
    aligned: dict[str, Array]
    errors: dict[str, float]
    dose: Array
    mask: Array
    noise: float


def relative_error(obj: Array, truth: Array, mask: Array) -> float:
    """Return the norm of the difference within the mask over the norm of the truth."""
    return float(np.linalg.norm((obj - truth)[mask]) / np.linalg.norm(truth[mask]))


def align(obj: Array, truth: Array, mask: Array) -> Array:
    """Return the object with the freedoms removed that no diffraction pattern can fix.

    A factor, a shift and a linear phase of the object are all undone by the opposite ones of the probe.
    """
    y, x = np.mgrid[: len(obj), : len(obj)] / len(obj)

    def moved(freedoms: Array) -> Array:
        shifted = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(obj), freedoms[:2]))
        tilted = shifted * np.exp(2j * np.pi * (freedoms[2] * y + freedoms[3] * x))
        return tilted * np.vdot(tilted[mask], truth[mask]) / np.vdot(tilted[mask], tilted[mask])

    fit = optimize.minimize(lambda f: relative_error(moved(f), truth, mask), np.zeros(4), method="Powell")
    return moved(fit.x)


def check_writable(folder: Path) -> None:
    """Make the folder, and leave the program if the results can't be written there when the work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in (folder / FIGURE, folder / TABLE):
            is_new = not path.exists()
            path.open("ab").close()
            if is_new:
                path.unlink()
    except OSError as error:
        raise SystemExit(f"--output {folder}: the results can't be written there: {error}") from error


def write(judged: Judgement, folder: Path) -> None:
    """Write the losses of all methods by epoch as a table, and the figure."""
    losses = [each.losses for each in judged.results.values()]
    with (folder / TABLE).open("w", newline="") as file:
        rows = ((epoch, *row) for epoch, row in enumerate(zip(*losses, strict=True), 1))
        csv.writer(file).writerows([("epoch", *judged.results), *rows])
    figure = Figure(figsize=(15, 10.5), layout="constrained")
    panels = figure.subplot_mosaic("apqs;emnt;dcll")
    for panel in panels.values():
        panel.tick_params(labelsize=8)
        panel.locator_params(nbins=5)
    _draw_object(panels["a"], panels["p"], judged)
    _draw_waves(panels["q"], panels["t"], judged)
    _draw_scan(panels["s"], judged)
    _draw_errors([panels[k] for k in "emn"], judged)
    _draw_patterns(panels["d"], panels["c"], judged)
    _draw_losses(panels["l"], judged)
    figure.savefig(folder / FIGURE, dpi=100)


def _show(panel: Any, image: Array, title: str, label: str = "", **options: Any) -> None:
    """Draw an image of the object's plane with axes in micrometres, and with a colour bar if that has a label."""
    width = len(image) * PIXEL
    drawn = panel.imshow(image, extent=(0, width, width, 0), interpolation="nearest", **options)
    panel.set_title(title)
    panel.set_xlabel("µm", fontsize=8)
    if label:
        panel.figure.colorbar(drawn, ax=panel, label=label, shrink=0.8)


def _draw_object(amplitude: Any, phase: Any, judged: Judgement) -> None:
    """Draw what RMSprop has found, where there was light."""
    obj = np.where(judged.mask, judged.aligned["RMSprop"], np.nan)
    _show(amplitude, np.abs(obj), "object: amplitude", "transmission", cmap="gray", vmin=0.2, vmax=1.1)
    _show(phase, np.angle(obj), "object: phase", "rad", cmap="gray", vmin=-1.1, vmax=1.1)


def _draw_waves(found: Any, true: Any, judged: Judgement) -> None:
    """Draw probes: the hue is the phase, the brightness the amplitude."""
    for panel, probe, title in (
        (found, judged.results["RMSprop"].probe, "probe"),
        (true, judged.truth["probe"], "true probe"),
    ):
        probe = probe * np.exp(-1j * np.angle(probe.sum()))  # its phase as a whole can't be known
        hue, value = np.angle(probe) / (2 * np.pi) % 1, np.abs(probe) / np.abs(probe).max()
        _show(panel, hsv_to_rgb(np.stack([hue, np.ones_like(hue), value], axis=-1)), title)
        phases = ScalarMappable(Normalize(0, 2 * np.pi), "hsv")
        panel.figure.colorbar(phases, ax=panel, label="phase, rad (brightness: amplitude)", shrink=0.8)


def _draw_scan(panel: Any, judged: Judgement) -> None:
    """Draw where the probe was, and how much light that brought."""
    _show(panel, judged.dose / judged.dose.max(), "scan positions", "dose, relative", cmap="magma")
    y, x = (judged.scan.corners.T + len(judged.truth["probe"]) / 2) * PIXEL
    panel.plot(x, y, ".", color="white", markersize=3)


def _draw_errors(panels: list[Any], judged: Judgement) -> None:
    """Draw the distance of each object from the truth, on the same scale."""
    for panel, (name, obj) in zip(panels, judged.aligned.items(), strict=True):
        wrong = np.where(judged.mask, np.abs(obj - judged.truth["object"]), np.nan)
        title = f"{name}: error {100 * judged.errors[name]:.1f}%"
        _show(panel, wrong, title, "|object - truth|", cmap="inferno", norm=LogNorm(1e-3, 1))


def _draw_patterns(measured: Any, computed: Any, judged: Judgement) -> None:
    """Draw the pattern in the midst of the scan, as it was measured, and as it follows from the result."""
    scan, result = judged.scan, judged.results["RMSprop"]
    n, i = len(result.probe), len(scan.corners) // 2
    (y, x), fourier = scan.corners[i], fourier_matrix(n)
    wave = fourier @ (result.probe * result.object[y : y + n, x : x + n]) @ fourier.T
    limit, brightest = 0.5 / PIXEL, scan.photons * float(scan.moduli[i].max()) ** 2
    extent, norm = (-limit, limit, limit, -limit), LogNorm(0.5, brightest)
    for panel, moduli, title in (
        (measured, scan.moduli[i], "diffraction pattern: measured"),
        (computed, np.abs(wave), "diffraction pattern: computed"),
    ):
        photons = np.maximum(moduli**2 * scan.photons, 0.5)
        drawn = panel.imshow(photons, extent=extent, norm=norm, cmap="viridis", interpolation="nearest")
        panel.set_title(title)
        panel.set_xlabel("spatial frequency, 1/µm", fontsize=8)
        panel.figure.colorbar(drawn, ax=panel, label="photons per pixel", shrink=0.8)


def _draw_losses(panel: Any, judged: Judgement) -> None:
    """Draw the losses of all methods, and what the noise would leave of them."""
    for name, result in judged.results.items():
        epochs = np.arange(1, len(result.losses) + 1)
        panel.semilogy(epochs, result.losses, color=COLORS[name], label=f"{name}, ends at {result.losses[-1]:.3g}")
    unknowns = 2 * int(judged.mask.sum() + judged.truth["probe"].size)  # real and imaginary parts
    share = 1 - unknowns / judged.scan.moduli.size
    told = f"noise: loss of the truth, {judged.noise:.3g}"
    panel.axhline(judged.noise, color="black", linestyle="--", label=told)
    panel.axhline(share * judged.noise, color="black", linestyle=":", label="expected of the best fit")
    panel.set(xlabel="epoch", ylabel="loss, mean over an epoch", title="convergence")
    panel.set_ylim(judged.noise / 8, None)
    panel.text(
        0.02, 0.04,
        f"The best fit has a lower loss than the truth: {unknowns:,} unknowns follow the noise of\n"
        f"{judged.scan.moduli.size:,} measurements, so that about {share:.0%} of its residual are left.",
        transform=panel.transAxes, fontsize=8, va="bottom",
    )  # fmt: skip
    panel.legend(fontsize=8, loc="upper right")
