"""Take steady steps, and count what is left over: objects, memory, threads, open files."""

import gc
import os
import sys
import tracemalloc

import numpy as np

from rmsprop import RMSprop


def counted():
    """Return numbers of objects that Python tracks, bytes that it has, threads, and file descriptors."""
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0]
    return len(gc.get_objects()), memory, len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    opt, arrays = RMSprop(momentum=0.9), [np.ones(10) for _ in range(3)]
    large = np.ones(300_000, np.float32)
    pairs = [(a.copy(), a) for a in arrays]

    def take(count):
        for k in range(count):
            opt.apply_gradients(pairs)
            if k % 100 == 0:
                opt.apply_gradients([(large, large)])

    take(1_000)
    tracemalloc.start()
    counted()
    before = counted()
    take(steps)
    after = counted()
    grown = [b - a for a, b in zip(before, after, strict=True)]
    print(f"after {steps} steps: {grown[0]} objects, {grown[1]} bytes, {grown[2]} threads, {grown[3]} files more")
    return grown[0] > 0 or grown[1] > 1_000 or grown[2] > 0 or grown[3] > 0


if __name__ == "__main__":
    sys.exit(main())
