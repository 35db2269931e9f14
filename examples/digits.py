"""A classifier of handwritten digits with one hidden layer, trained by `RMSprop.minimize`.

python examples/digits.py                         # a few seconds
mpiexec -n 2 python examples/digits.py --mpi      # on two processes, each with half of each batch
"""

import argparse
from collections.abc import Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import trange

import rmsprop

HIDDEN = 64
BATCH = 64


def load(seed: int) -> list[Any]:
    """Return images and labels to train with and to test with: x_train, x_test, y_train, y_test."""
    images, labels = load_digits(return_X_y=True)
    return list(train_test_split((images / 16).astype(np.float32), labels, random_state=seed))


def layer(inputs: int, outputs: int, rng: np.random.Generator) -> list[rmsprop.Variable]:
    """Return random weights that keep the variance of what passes through, and zero biases."""
    weights = rng.normal(scale=np.sqrt(2 / inputs), size=(inputs, outputs))
    return [rmsprop.Variable(weights.astype(np.float32)), rmsprop.Variable(np.zeros(outputs, np.float32))]


def logits(images: NDArray[Any], variables: list[rmsprop.Variable]) -> Any:
    """Return a score for each image and digit."""
    w1, b1, w2, b2 = (variable.value for variable in variables)
    return anp.maximum(images @ w1 + b1, 0) @ w2 + b2


def cross_entropy(scores: Any, labels: NDArray[Any]) -> Any:
    """Return the mean negative log-probability of the right digits."""
    shifted = scores - anp.max(scores, axis=1, keepdims=True)
    log_probabilities = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
    return -anp.mean(log_probabilities[anp.arange(len(labels)), labels])


def train(
    x: NDArray[Any], y: NDArray[Any], epochs: int, rng: np.random.Generator, strategy: rmsprop.distribute.Strategy
) -> list[rmsprop.Variable]:
    """Return trained variables."""
    variables = [*layer(x.shape[1], HIDDEN, rng), *layer(HIDDEN, 10, rng)]
    steps = epochs * (len(x) // BATCH)
    with strategy.scope():
        opt = rmsprop.RMSprop(rmsprop.schedules.CosineDecay(3e-3, decay_steps=steps), momentum=0.9, clipnorm=1.0)

    def loss() -> Any:
        batch = rng.choice(len(x), BATCH, replace=False)  # the same on all replicas
        own = batch[strategy.rank :: strategy.num_replicas_in_sync]
        # Gradients of the replicas are added up: each counts as much as it has of the batch.
        return cross_entropy(logits(x[own], variables), y[own]) * (len(own) / BATCH)

    bar = trange(steps, disable=strategy.rank > 0)
    for _ in bar:
        bar.set_postfix(lr=f"{opt.current_learning_rate:.1e}", refresh=False)
        strategy.run(opt.minimize, args=(loss, variables))
    return variables


def main(argv: Sequence[str] | None = None) -> float:
    """Train, and return the accuracy on images that were not trained with."""
    parser = argparse.ArgumentParser(description="Train a classifier of handwritten digits with RMSprop.")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and division of the images")
    parser.add_argument("--mpi", action="store_true", help="train on all processes that mpiexec has started")
    settings = parser.parse_args(argv)
    strategy = rmsprop.distribute.MPIStrategy() if settings.mpi else rmsprop.distribute.get_strategy()
    x_train, x_test, y_train, y_test = load(settings.seed)
    variables = train(x_train, y_train, settings.epochs, np.random.default_rng(settings.seed), strategy)
    accuracy = float(np.mean(np.argmax(logits(x_test, variables), axis=1) == y_test))
    if strategy.rank == 0:
        print(f"accuracy on {len(y_test)} test images: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
