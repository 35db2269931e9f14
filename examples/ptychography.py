"""Blind ptychography: RMSprop recovers an object and its illumination from diffraction patterns.

A narrow beam of light, the probe, visits overlapping spots of an object. At each of them a camera records how
much light arrives where, but not its phase. That the spots overlap makes up for the lost phases.

    python examples/ptychography.py                     # a quarter of a minute, on one processor core
    python examples/ptychography.py --backend cupy      # the same on a GPU
    python examples/ptychography.py --small             # a few seconds
    mpiexec -n 2 python examples/ptychography.py --mpi  # each process takes its part of the scan positions

The folder demo_output then holds a figure and the convergence as a table.
"""

import argparse
import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage, optimize
from skimage import color, data, transform
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import rmsprop

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray
Corners: TypeAlias = list[tuple[int, int]]

PHOTONS = 1e7  # per diffraction pattern
BATCH = 8  # diffraction patterns per iteration
LEARNING_RATE = 0.05  # object and probe are both of order one, so that one learning rate suits both
RHO = 0.8  # a short memory: the beam lights a pixel in a few batches only

FIGURE, TABLE = "ptychography.png", "ptychography.csv"


class Scan(NamedTuple):
    """What an experiment delivers: where the probe was, and the square roots of the intensities."""

    corners: Corners
    moduli: Array


class Epoch(NamedTuple):
    """One line of the convergence table."""

    epoch: int
    iterations: int
    loss: float
    learning_rate: float


class Result(NamedTuple):
    """The last loss, the loss of the truth, which is all noise, and the relative error of the object."""

    loss: float
    noise: float
    object_error: float


# The experiment, simulated


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


def scan_corners(size: int, n: int, rng: np.random.Generator) -> Corners:
    """Return the upper left corners of the spots, jittered because a regular grid leaves raster artefacts."""
    line = np.linspace(0, size - n, round((size - n) / (0.2 * n)) + 1)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    jittered = np.rint(grid + rng.uniform(-0.05 * n, 0.05 * n, grid.shape)).clip(0, size - n)
    return [(int(y), int(x)) for y, x in jittered]


def measure(obj: Array, probe: Array, corners: Corners, rng: np.random.Generator) -> Scan:
    """Return a scan with Poisson noise, in units in which the probe has a mean square of one."""
    fourier = fourier_matrix(len(probe))
    intensities = np.abs(fourier @ (probe * cut(np, obj, corners, len(probe))) @ fourier.T) ** 2
    photons = PHOTONS / intensities.sum(axis=(1, 2)).mean()
    return Scan(corners, np.sqrt(rng.poisson(intensities * photons) / photons).astype(np.float32))


# The model and its gradients


def fourier_matrix(n: int) -> Array:
    """Return F of the unitary transform F @ x @ F.T, which for small images is faster than an FFT."""
    k = np.arange(n) - n // 2
    return (np.exp(-2j * np.pi / n * np.outer(k, k)) / np.sqrt(n)).astype(np.complex64)


def cut(xp: Any, obj: Array, corners: Corners, n: int) -> Array:
    """Return the n-by-n patches of the object at the corners."""
    return xp.stack([obj[y : y + n, x : x + n] for y, x in corners])


def scatter(xp: Any, patches: Array, corners: Corners, size: int) -> Array:
    """Return the adjoint of `cut`: patches are put back, and add up where they overlap."""
    total = xp.zeros((size, size), patches.dtype)
    n = patches.shape[-1]
    for patch, (y, x) in zip(patches, corners, strict=True):
        total[y : y + n, x : x + n] += patch
    return total


def loss_and_gradients(xp: Any, fourier: Array, obj: Array, probe: Array, scan: Scan) -> tuple[Array, ...]:
    """Return the loss and its gradients to object and probe.

    The loss is the sum of (|F(probe * patch)| - modulus)**2 over the pixels of a pattern, averaged over the
    patterns. Square roots of photon counts all have the same variance, so no weights are needed.

    The gradient to a complex z is dL/dRe z + i dL/dIm z, twice the Wirtinger derivative dL/dconj(z). This is
    what `RMSprop.apply_gradients` expects; for real z it is the usual derivative: |z|**2 has 2 z.
    """
    patches = cut(xp, obj, scan.corners, len(probe))
    waves = fourier @ (probe * patches) @ fourier.T
    moduli = xp.abs(waves)
    excess = moduli - scan.moduli
    loss = (excess**2).sum() / len(excess)
    # Where no light arrives the phase is undefined: the small number makes its gradient zero there.
    waves *= 2 / len(excess) * excess / (moduli + 1e-9)
    returned = fourier.conj() @ waves @ fourier.conj().T
    object_gradient = scatter(xp, probe.conj() * returned, scan.corners, len(obj))
    return loss, object_gradient, (patches.conj() * returned).sum(axis=0)


# The reconstruction


def batches(scan: Scan, count: int, rng: np.random.Generator) -> Iterator[Scan]:
    """Yield all patterns once, in random order, divided into batches."""
    for chosen in np.array_split(rng.permutation(len(scan.corners)), count):
        yield Scan([scan.corners[i] for i in chosen], scan.moduli[chosen])


def part_of(scan: Scan, strategy: rmsprop.distribute.Strategy) -> tuple[Scan, float]:
    """Return the patterns that this replica looks at, and which fraction of all they are."""
    first, step = strategy.rank, strategy.num_replicas_in_sync
    own = Scan(scan.corners[first::step], scan.moduli[first::step])
    return own, len(own.corners) / len(scan.corners)


def reconstruct(
    xp: Any, scan: Scan, obj: Array, probe: Array, epochs: int, seed: int, strategy: rmsprop.distribute.Strategy
) -> list[Epoch]:
    """Improve object and probe in place and return the convergence table."""
    rng = np.random.default_rng(seed)
    fourier = xp.asarray(fourier_matrix(len(probe)))
    count = math.ceil(len(scan.corners) / BATCH)
    schedule = rmsprop.schedules.CosineDecay(LEARNING_RATE, decay_steps=epochs * count)
    with strategy.scope():
        opt = rmsprop.RMSprop(schedule, rho=RHO)

    def step(batch: Scan) -> Array:
        part, fraction = part_of(batch, strategy)
        loss, *grads = loss_and_gradients(xp, fourier, obj, probe, part)
        # Gradients of the replicas are added up: each counts as much as it has of the batch.
        opt.apply_gradients([(fraction * grads[0], obj), (fraction * grads[1], probe)])
        return fraction * loss

    table = []
    with tqdm(total=epochs * count, disable=strategy.rank > 0) as bar:
        for epoch in range(1, epochs + 1):
            losses = []
            for batch in batches(scan, count, rng):
                learning_rate = opt.current_learning_rate
                losses.append(strategy.run(step, args=(batch,)))
                bar.update()
            # Only here does a GPU have to be waited for: a loss is not needed earlier than it is shown.
            loss = float(strategy.reduce("sum", float(sum(losses)))) / count
            table.append(Epoch(epoch, int(opt.iterations), loss, learning_rate))
            bar.set_postfix(loss=f"{table[-1].loss:.4g}", lr=f"{learning_rate:.1e}", refresh=False)
    return table


# The judgement and the output


def illuminated(probe: Array, corners: Corners, size: int) -> Array:
    """Return where the object has received at least a tenth of the highest dose."""
    dose = scatter(np, np.stack([np.abs(probe) ** 2] * len(corners)), corners, size)
    return dose > 0.1 * dose.max()


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


def write(rows: dict[str, tuple[Array, Array]], table: list[Epoch], noise: float, folder: Path) -> None:
    """Write the table, and a figure of pairs of object and probe, a row each, and of the convergence."""
    with (folder / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows([Epoch._fields, *table])
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    panels = figure.subplot_mosaic("abcl;defl;ghir", width_ratios=(1, 1, 1, 1.2))
    for row, (name, (obj, probe)) in zip(("abc", "def", "ghi"), rows.items(), strict=True):
        draw(panels[row[0]], np.abs(obj), f"{name}: amplitude", (0.2, 1.1))
        draw(panels[row[1]], np.angle(obj), f"{name}: phase", (-1.1, 1.1))
        draw(panels[row[2]], np.abs(probe), f"{name}: probe", (0, None))
    _, iterations, losses, learning_rates = zip(*table, strict=True)
    panels["l"].semilogy(iterations, losses)
    panels["l"].axhline(noise, color="gray", linestyle="--")
    panels["l"].set_title("loss (dashed: noise alone)")
    panels["r"].plot(iterations, learning_rates)
    panels["r"].set(title="learning rate", xlabel="iteration")
    figure.savefig(folder / FIGURE, dpi=120)


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


def draw(panel: Any, image: Array, title: str, limits: tuple[float, float | None]) -> None:
    """Draw a picture without axes."""
    panel.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
    panel.set(title=title, xticks=[], yticks=[])


# The command line


def array_module(backend: str) -> Any:
    """Return numpy, or cupy if it is there with a device to compute on."""
    if backend == "numpy":
        return np
    try:
        import cupy

        cupy.zeros(1)
    except Exception as error:
        raise SystemExit("--backend cupy needs CuPy (pip install cupy-cuda12x) and a CUDA device") from error
    return cupy


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings that the command line asks for."""
    parser = argparse.ArgumentParser(description="Blind ptychography with RMSprop.")
    add = parser.add_argument
    add("--backend", choices=["numpy", "cupy"], default="numpy")
    add("--epochs", type=int, default=500, help="passes over all diffraction patterns")
    add("--size", type=int, default=224, help="width of the object in pixels")
    add("--probe", type=int, default=64, help="width of the probe in pixels")
    add("--seed", type=int, default=0, help="of positions, noise and order of the patterns")
    add("--output", type=Path, default=Path("demo_output"), help="folder for figure and table")
    add("--mpi", action="store_true", help="work on all processes that mpiexec has started")
    add("--small", action="store_true", help="other defaults: 60 epochs, widths 64 and 24")
    if parser.parse_args(argv).small:
        parser.set_defaults(epochs=60, size=64, probe=24)
    settings = parser.parse_args(argv)
    if settings.epochs < 1 or settings.size < 2 * settings.probe:
        parser.error("at least one epoch and an object at least twice as wide as the probe are needed")
    return settings


def demonstrate(xp: Any, settings: argparse.Namespace, strategy: rmsprop.distribute.Strategy) -> Result:
    """Simulate the experiment, reconstruct the object, and compare it with the truth."""
    rng, size, n = np.random.default_rng(settings.seed), settings.size, settings.probe
    truth, true_probe = make_object(size, frame=n // 4), make_probe(n, defocus=0.33, astigmatism=0.05)
    start, start_probe = np.ones_like(truth), make_probe(n, defocus=0.27)
    scan = measure(truth, true_probe, scan_corners(size, n, rng), rng)
    noise = float(loss_and_gradients(np, fourier_matrix(n), truth, true_probe, scan)[0])

    obj, probe = xp.array(start), xp.array(start_probe)
    scan = Scan(scan.corners, xp.asarray(scan.moduli))
    table = reconstruct(xp, scan, obj, probe, settings.epochs, settings.seed, strategy)

    to_numpy = getattr(xp, "asnumpy", np.asarray)
    mask = illuminated(true_probe, scan.corners, size)
    found = align(to_numpy(obj), truth, mask)
    shown = np.where(mask, found, np.nan)
    rows = {"truth": (truth, true_probe), "start": (start, start_probe), "RMSprop": (shown, to_numpy(probe))}
    if strategy.rank == 0:
        write(rows, table, noise, settings.output)
    return Result(table[-1].loss, noise, relative_error(found, truth, mask))


def main(argv: Sequence[str] | None = None) -> Result:
    """Run the demonstration as the command line asks."""
    settings = parse(argv)
    # The matrices are so small that threads would wait for each other longer than they work.
    strategy = rmsprop.distribute.MPIStrategy() if settings.mpi else rmsprop.distribute.get_strategy()
    if strategy.rank == 0:
        check_writable(settings.output)
    with threadpool_limits(limits=1, user_api="blas"):
        result = demonstrate(array_module(settings.backend), settings, strategy)
    if strategy.rank == 0:
        print(f"loss {result.loss:.4g} (noise alone: {result.noise:.4g})")
        print(f"relative error of the object {result.object_error:.4f}")
        print(f"figure: {(settings.output / FIGURE).resolve()}")
    return result


if __name__ == "__main__":
    main()
