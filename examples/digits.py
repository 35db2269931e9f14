"""A classifier of handwritten digits with one hidden layer, trained by `rmsprop.minimize`.

    python examples/digits.py                         # a few seconds
    mpiexec -n 2 python examples/digits.py --mpi      # on two processes, each with half of each batch

It prints the accuracy, and draws the convergence and what was mistaken for what: demo_output/digits.png.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import autograd.numpy as anp
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import rmsprop

Array: TypeAlias = Any

HIDDEN = 64
BATCH = 64


class Digits(NamedTuple):
    """Images of 8 x 8 pixels, flat, and what they show: to train with, and to test with."""

    x_train: Array
    x_test: Array
    y_train: Array
    y_test: Array


def load(seed: int) -> Digits:
    """Return the images, divided at random."""
    images, labels = load_digits(return_X_y=True)
    return Digits(*train_test_split((images / 16).astype(np.float32), labels, random_state=seed))


def layer(inputs: int, outputs: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return random weights that keep the variance of what passes through, and zero biases."""
    weights = rng.normal(scale=np.sqrt(2 / inputs), size=(inputs, outputs))
    return {"weights": weights.astype(np.float32), "bias": np.zeros(outputs, np.float32)}


def logits(network: dict[str, Any], images: Array) -> Any:
    """Return a score for each image and digit."""
    hidden, output = network["hidden"], network["output"]
    activity = anp.maximum(images @ hidden["weights"] + hidden["bias"], 0)
    return activity @ output["weights"] + output["bias"]


def cross_entropy(scores: Any, labels: Array) -> Any:
    """Return the negative log-probability of the right digits, added up."""
    shifted = scores - anp.max(scores, axis=1, keepdims=True)
    log_probabilities = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
    return -anp.sum(log_probabilities[anp.arange(len(labels)), labels])


def train(
    x: Array, y: Array, epochs: int, rng: np.random.Generator, strategy: rmsprop.distribute.Strategy
) -> rmsprop.OptimizeResult:
    """Return the result of training: `x` is the network, a nested dict."""

    def batches(epoch: int) -> Iterator[Array]:
        """Yield all images but a few, in random order, which is the same on all replicas."""
        yield from rng.permutation(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH)

    def loss(network: dict[str, Any], batch: Array) -> Any:
        """Return the mean over a batch; that of all replicas is the sum of what each contributes."""
        own = batch[strategy.rank :: strategy.num_replicas_in_sync]
        return cross_entropy(logits(network, x[own]), y[own]) / BATCH

    steps = epochs * (len(x) // BATCH)
    with strategy.scope():
        optimizer = rmsprop.RMSprop(rmsprop.schedules.CosineDecay(3e-3, steps), momentum=0.9, clipnorm=1.0)
    network = {"hidden": layer(x.shape[1], HIDDEN, rng), "output": layer(HIDDEN, 10, rng)}
    return rmsprop.minimize(loss, network, batches=batches, steps=steps, optimizer=optimizer, progress=True)


def draw(result: rmsprop.OptimizeResult, digits: Digits, found: Array, path: Path) -> None:
    """Draw the convergence, what was mistaken for what, and some of the images that were."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    losses, confusion, images = figure.subplots(1, 3)
    epochs = np.arange(1, result.nit + 1) * BATCH / len(digits.y_train)
    losses.semilogy(epochs, result.history["fun"], linewidth=0.8)
    losses.set(xlabel="epoch", ylabel="cross-entropy of a batch, nats", title="convergence")
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (digits.y_test, found), 1)
    drawn = confusion.imshow(np.where(counts > 0, counts, np.nan), cmap="viridis_r")
    confusion.set(xlabel="recognised as", ylabel="digit", title=f"accuracy {np.mean(digits.y_test == found):.1%}")
    confusion.set(xticks=range(10), yticks=range(10))
    figure.colorbar(drawn, ax=confusion, label="test images", shrink=0.8)
    wrong = np.flatnonzero(digits.y_test != found)[:9]
    canvas = np.zeros((3 * 9, 3 * 9))
    for k, i in enumerate(wrong):
        y, x = 9 * (k // 3), 9 * (k % 3)
        canvas[y : y + 8, x : x + 8] = digits.x_test[i].reshape(8, 8)
        told = f"{digits.y_test[i]}, not {found[i]}"
        images.text(x, y + 8.2, told, color="white", fontsize=8, va="center")
    images.imshow(canvas, cmap="gray")
    images.set(title=f"{len(wrong)} of {np.sum(digits.y_test != found)} that were mistaken", xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> float:
    """Train, and return the accuracy on images that were not trained with."""
    parser = argparse.ArgumentParser(description="Train a classifier of handwritten digits with RMSprop.")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and division of the images")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the figure")
    parser.add_argument("--mpi", action="store_true", help="train on all processes that mpiexec has started")
    settings = parser.parse_args(argv)
    strategy = rmsprop.distribute.MPIStrategy() if settings.mpi else rmsprop.distribute.get_strategy()
    if strategy.rank == 0:
        settings.output.mkdir(parents=True, exist_ok=True)
    digits, rng = load(settings.seed), np.random.default_rng(settings.seed)
    result = train(digits.x_train, digits.y_train, settings.epochs, rng, strategy)
    found = np.argmax(logits(result.x, digits.x_test), axis=1)
    accuracy = float(np.mean(found == digits.y_test))
    if strategy.rank == 0:
        path = settings.output / "digits.png"
        draw(result, digits, found, path)
        print(f"accuracy on {len(found)} test images: {accuracy:.3f}")
        print(f"figure: {path.resolve()}")
    return accuracy


if __name__ == "__main__":
    main()
