"""Let threads take steps of their own optimizers, and of shared ones; compare all bits with one thread's."""

import hashlib
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from work import Training, check_layer, choose_layer, program


def own(trainings, steps, start):
    """Take the steps of one thread, turn and turn about."""
    start.wait()
    for k in range(steps):
        for training in trainings:
            training.step(k)


def shared(training, steps, start):
    """Take steps that are all alike, so that their order makes no difference."""
    start.wait()
    for _ in range(steps):
        training.step(0)
        training.optimizer.get_weights()


def main():
    parser = program(__doc__)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1_000)
    given = parser.parse_args()
    choose_layer(given.layer)
    sys.setswitchinterval(1e-4)
    threads, kinds, steps = given.threads, range(given.kinds), given.steps

    many = [[Training(kind, seed) for kind in kinds] for seed in range(threads)]
    one = [Training(kind, 0) for kind in kinds]
    start = threading.Barrier(threads)
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(own, trainings, steps, start) for trainings in many]:
            future.result()
        for training in one:
            for future in [pool.submit(shared, training, steps // 10, start) for _ in range(threads)]:
                future.result()
    check_layer(given.layer)

    wrong = 0
    for seed, trainings in enumerate(many):
        alone = [Training(kind, seed) for kind in kinds]
        own(alone, steps, threading.Barrier(1))
        wrong += sum(a.digest() != b.digest() for a, b in zip(alone, trainings, strict=True))
    for kind, training in enumerate(one):
        alone = Training(kind, 0)
        shared(alone, threads * (steps // 10), threading.Barrier(1))
        wrong += training.digest() != alone.digest()
    digest = hashlib.sha256("".join(t.digest() for ts in [*many, one] for t in ts).encode()).hexdigest()
    print(
        f"{given.layer}: {threads} threads x {len(kinds)} optimizers x {steps} steps: {wrong} wrong, {digest[:16]}"
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
