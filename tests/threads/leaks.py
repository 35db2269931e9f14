"""Take steady steps, and count what is left over: objects, memory, threads, open files."""

import gc
import os
import sys
import tempfile
import tracemalloc

import numpy as np

from rmsprop import IndexedSlices, LossScale, RMSprop, schedules


def counted():
    """Return numbers of objects that Python tracks, bytes that it has, threads, and file descriptors."""
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0]
    return len(gc.get_objects()), memory, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


OPTIONS = [
    {},
    {"momentum": 0.9, "centered": True},
    {"learning_rate": schedules.ExponentialDecay(0.1, 1_000, 0.5), "rho": lambda: 0.9},
    {"clipvalue": 1.0, "clipnorm": 1.0},
    {"global_clipnorm": 1.0, "nonfinite": "skip", "loss_scale": LossScale()},
    {"state_dtype": "uint8"},
]


def trainings():
    """Return optimizers of all kinds, with pairs of gradients and variables: dense, strided and sparse ones."""
    found = []
    for options in OPTIONS:
        pairs = [(np.ones(10), np.ones(10)), (np.ones((4, 64)), np.ones((4, 64))[:, ::-1])]
        if "state_dtype" not in options:
            pairs.append((IndexedSlices(np.ones((2, 64)), np.array([3, 3])), np.ones((5, 64))))
        found.append((RMSprop(**options), pairs))
    return found


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    small, opt, large = trainings(), RMSprop(), np.ones(300_000, np.float32)
    folder = tempfile.TemporaryDirectory()
    path = os.path.join(folder.name, "state")

    def take(count):
        for k in range(count):
            optimizer, pairs = small[k % len(small)]
            optimizer.apply_gradients(pairs if k % 5 else [(g, v) for g, v in pairs])
            if k % 100 == 0:
                opt.apply_gradients([(large, large)])
            if k % 1_000 == 0:
                opt.save(path, {"large": large}, wait=False).wait()

    take(2_000)
    tracemalloc.start()
    counted()
    before = counted()
    take(steps)
    after = counted()
    grown = [b - a for a, b in zip(before, after, strict=True)]
    folder.cleanup()
    print(f"after {steps} steps: {grown[0]} objects, {grown[1]} bytes, {grown[2]} threads, {grown[3]} files more")
    return grown[0] > 0 or grown[1] > 10_000 or grown[2] > 0 or grown[3] > 0


if __name__ == "__main__":
    sys.exit(main())
