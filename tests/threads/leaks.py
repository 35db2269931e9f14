"""Take steady steps of all kinds, and count what is left over: arrays, objects, memory, threads, open files."""

import gc
import os
import sys
import tempfile
import tracemalloc

import numpy as np

from rmsprop import IndexedSlices, LossScale, RMSprop, schedules

OPTIONS = [
    {},
    {"momentum": 0.9, "centered": True},
    {"clipvalue": 0.5, "clipnorm": 1.0},
    {"global_clipnorm": 1.0},
    {"nonfinite": "skip"},
    {"nonfinite": "raise"},
    {"nonfinite": "skip", "loss_scale": LossScale()},
    {"state_dtype": "bfloat16"},
    {"state_dtype": "uint8", "momentum": 0.9},
    {"learning_rate": schedules.ExponentialDecay(1e-3, 10, 0.9), "rho": lambda: 0.9},
]
DRAWS = 10
"""Gradients are used again after so many steps; one of them is not finite, where that is not for the variables."""


class Training:
    """An optimizer of arrays, one strided and one with sparse gradients, saved in the background at times."""

    def __init__(self, options, path):
        rng = np.random.default_rng(0)
        self.optimizer, self.path, self.saving = RMSprop(**options), path, None
        self.arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [(10,), (3, 5), (1_000,)]]
        self.table = rng.standard_normal((50, 64)).astype(np.float32)
        self.strided = rng.standard_normal((4, 64)).astype(np.float32)[:, ::-1]
        self.large = rng.standard_normal(300_000).astype(np.float32)
        self.gradients = [[np.sin(a + k) for a in self.arrays] for k in range(DRAWS)]
        self.rows = np.arange(5) * 3
        if "nonfinite" in options:
            self.gradients[-1][0][2] = np.nan

    def step(self, k):
        """Take the step that repeats the last one's arrays, or has new ones, or sparse ones, or is refused."""
        if k % 10_000 == 0:
            variables = [*self.arrays, self.table, self.strided, self.large]
            self.saving = self.optimizer.save(self.path, variables, wait=False)
        if k % 1_000 == 0:
            self.take([(self.large, self.large)])
        gradients = self.gradients[k // 3 % DRAWS]
        if k % 3 == 0:
            rows = IndexedSlices(np.ones((5, 64), np.float32), self.rows)
            return self.take([(rows, self.table), (self.strided, self.strided)])
        if k % 3 == 1:
            gradients = [g.copy() for g in gradients]
        return self.take(list(zip(gradients, self.arrays, strict=True)))

    def take(self, pairs):
        """Take a step, or be told why not."""
        try:
            self.optimizer.apply_gradients(pairs)
        except FloatingPointError:
            assert self.optimizer.nonfinite == "raise"


def counted():
    """Return numbers of arrays, of other objects that Python tracks, of bytes, threads, and file descriptors."""
    gc.collect()
    arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    count = len(arrays.traces)
    del arrays
    sys._clear_type_cache()  # which holds names of methods that NumPy has looked up
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0]
    return (
        count,
        len(gc.get_objects()),
        memory,
        resident(),
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
    )


def resident():
    """Return the bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        trainings = [Training(options, f"{folder}/{k}.safetensors") for k, options in enumerate(OPTIONS)]

        def take(count):
            for training in trainings:
                for k in range(count):
                    training.step(k)
                training.saving.wait()

        take(3_000)
        tracemalloc.start()  # not before, since it makes compilation slow
        take(3_000)  # for what is replaced once, and would seem to be new
        counted()
        before = counted()
        take(steps)
        after = counted()  # in a line of its own, in which nothing else is made
        grown = [b - a for a, b in zip(before, after, strict=True)]
    arrays, objects, memory, pages, threads, files = grown
    print(
        f"after {steps} steps of {len(OPTIONS)} optimizers: {arrays} arrays, {objects} objects, {memory} bytes "
        f"({pages} in pages), {threads} threads, {files} files more"
    )
    return arrays > 0 or objects > 0 or memory > 1_000 or pages > 2**20 or threads > 0 or files > 0


if __name__ == "__main__":
    sys.exit(main())
