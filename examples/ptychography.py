"""Blind ptychography: RMSprop recovers an object and its illumination from diffraction patterns.

A narrow beam of light, the probe, visits overlapping spots of an object. At each of them a camera records how
much light arrives where, but not its phase. That the spots overlap makes up for the lost phases.

    python examples/ptychography.py                     # half a minute, on one processor core
    python examples/ptychography.py --backend cupy      # the same on a GPU
    python examples/ptychography.py --small             # a few seconds
    mpiexec -n 2 python examples/ptychography.py --mpi  # each process takes its part of the scan positions

The folder demo_output then holds a figure, which compares the result with that of the field's own methods, ePIE
and mPIE, and the convergence of all three as a table.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ptychography_data import (
    Array,
    Scan,
    cut,
    dose,
    fourier_matrix,
    make_object,
    make_probe,
    measure,
    scan_corners,
)
from ptychography_figure import Judgement, align, check_writable, relative_error, write
from ptychography_peers import Reconstruction, epie, mpie
from threadpoolctl import threadpool_limits

import rmsprop

BATCH = 2  # diffraction patterns per step
RATES = {"object": 0.05, "probe": 0.02}  # the probe is lit by each pattern: it moves more often
RHO = 0.8  # a short memory: the beam lights a pixel in a few batches only


class Batch(NamedTuple):
    """The patterns that a replica looks at, and how many all replicas have together."""

    corners: Array
    moduli: Array
    count: int


class Result(NamedTuple):
    """The last loss, the loss of the truth, which is all noise, and the relative error of the object."""

    loss: float
    noise: float
    object_error: float


def loss_and_gradients(x: dict[str, Array], batch: Batch, xp: Any, fourier: Array) -> tuple[Array, dict[str, Any]]:
    """Return the loss and its gradients to object and probe.

    The loss is the sum of (|F(probe * patch)| - modulus)**2 over the pixels of a pattern, averaged over the
    patterns. Square roots of photon counts all have the same variance, so no weights are needed.

    The gradient to a complex z is dL/dRe z + i dL/dIm z, twice the Wirtinger derivative dL/dconj(z). This is
    what `rmsprop` expects; for real z it is the usual derivative: |z|**2 has 2 z.
    """
    probe = x["probe"]
    patches = cut(xp, x["object"], batch.corners, len(probe))
    waves = fourier @ (probe * patches) @ fourier.T
    moduli = xp.abs(waves)
    excess = moduli - batch.moduli
    loss = (excess**2).sum() / batch.count
    # Where no light arrives the phase is undefined: the small number makes its gradient zero there.
    waves *= 2 / batch.count * excess / (moduli + 1e-9)
    returned = fourier.conj() @ waves @ fourier.conj().T
    of_object = rmsprop.Windows(probe.conj() * returned, batch.corners)  # overlaps are added up
    return loss, {"object": of_object, "probe": (patches.conj() * returned).sum(axis=0)}


def reconstruct(
    xp: Any, scan: Scan, x0: dict[str, Array], epochs: int, seed: int, strategy: rmsprop.distribute.Strategy
) -> rmsprop.OptimizeResult:
    """Return the minimum that RMSprop comes to from an object and a probe."""
    per_epoch = math.ceil(len(scan.corners) / BATCH)
    moduli = xp.asarray(scan.moduli)

    def batches(epoch: int) -> Iterator[Batch]:
        """Yield all patterns once, in random order, which is the same on all replicas."""
        order = np.random.default_rng([seed, epoch]).permutation(len(scan.corners))
        for chosen in np.array_split(order, per_epoch):
            own = chosen[strategy.rank :: strategy.num_replicas_in_sync]
            yield Batch(scan.corners[own], moduli[own], len(chosen))

    # Where the beam is not, the second moment decays (lazy=False), so that each visit begins with large steps.
    decay = rmsprop.schedules.CosineDecay(1.0, decay_steps=epochs * per_epoch)
    with strategy.scope():
        optimizer = rmsprop.RMSprop(decay, rho=RHO, lazy=False)
    optimizer.build(x0)
    for name, rate in RATES.items():
        optimizer.group([x0[name]], lr_mult=rate)
    fourier = xp.asarray(fourier_matrix(len(x0["probe"])))
    return rmsprop.minimize(
        loss_and_gradients, x0, args=(xp, fourier), jac=True,
        batches=batches, steps=epochs * per_epoch, optimizer=optimizer, progress=True,
    )  # fmt: skip


def demonstrate(xp: Any, settings: argparse.Namespace, strategy: rmsprop.distribute.Strategy) -> Result:
    """Simulate the experiment, reconstruct the object, and compare it with the truth, and with other methods."""
    rng, size, n, epochs = np.random.default_rng(settings.seed), settings.size, settings.probe, settings.epochs
    truth, true_probe = make_object(size, frame=n // 4), make_probe(n, defocus=0.33, astigmatism=0.05)
    start, start_probe = np.ones_like(truth), make_probe(n, defocus=0.27)
    scan = measure(truth, true_probe, scan_corners(size, n, rng), rng)

    x0 = {"object": xp.asarray(start), "probe": xp.asarray(start_probe)}
    result = reconstruct(xp, scan, x0, epochs, settings.seed, strategy)
    to_numpy = getattr(xp, "asnumpy", np.asarray)
    found = {name: to_numpy(array) for name, array in result.x.items()}
    losses = result.history["fun"].reshape(epochs, -1).mean(axis=1)

    light = dose(true_probe, scan.corners, size)
    mask = light > 0.1 * light.max()
    everything = Batch(scan.corners, scan.moduli, len(scan.corners))
    at_truth = {"object": truth, "probe": true_probe}
    noise = float(loss_and_gradients(at_truth, everything, np, fourier_matrix(n))[0])
    if strategy.rank == 0:
        results = {"RMSprop": Reconstruction(found["object"], found["probe"], losses)}
        for name, method in (("mPIE", mpie), ("ePIE", epie)):
            results[name] = method(scan, start, start_probe, epochs, settings.seed)
        aligned = {name: align(each.object, truth, mask) for name, each in results.items()}
        errors = {name: relative_error(each, truth, mask) for name, each in aligned.items()}
        write(Judgement(scan, at_truth, results, aligned, errors, light, mask, noise), settings.output)
        for name, error in errors.items():
            print(f"{name}: relative error of the object {error:.4f}")
    return Result(float(losses[-1]), noise, relative_error(align(found["object"], truth, mask), truth, mask))


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
    add("--epochs", type=int, default=100, help="passes over all diffraction patterns")
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


def main(argv: Sequence[str] | None = None) -> Result:
    """Run the demonstration as the command line asks."""
    settings = parse(argv)
    strategy = rmsprop.distribute.MPIStrategy() if settings.mpi else rmsprop.distribute.get_strategy()
    if strategy.rank == 0:
        check_writable(settings.output)
    # The matrices are so small that threads would wait for each other longer than they work.
    with threadpool_limits(limits=1, user_api="blas"):
        result = demonstrate(array_module(settings.backend), settings, strategy)
    if strategy.rank == 0:
        print(f"loss {result.loss:.4g} (noise alone: {result.noise:.4g})")
        print(f"figure: {(settings.output / 'ptychography.png').resolve()}")
    return result


if __name__ == "__main__":
    main()
