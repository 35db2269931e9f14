"""Checkpoints of a large state: to save and to restore them, and to write and read the same bytes."""

import os
import tempfile

import numpy as np

from benchmarks.scenarios import SMOKE
from rmsprop import RMSprop

ELEMENTS = 10_000 if SMOKE else 50_000_000


class Checkpoints:
    """Seconds for a variable of float32 and its average."""

    params = ["rmsprop", "limit"]
    param_names = ("contender",)
    timeout = 120

    def setup(self, contender):
        if not hasattr(RMSprop, "save"):
            raise NotImplementedError("there were no checkpoints yet")
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "checkpoint.safetensors")
        self.optimizer, self.variable = RMSprop(), np.ones(ELEMENTS, np.float32)
        self.optimizer.build([self.variable])
        self.arrays = [self.variable, self.optimizer.weights[1].array]
        self.is_limit = contender == "limit"
        self.time_save(contender)

    def teardown(self, contender):
        self.folder.cleanup()

    def time_save(self, contender):
        if not self.is_limit:
            self.optimizer.save(self.path, [self.variable])
            return
        with open(self.path, "wb") as file:
            file.writelines(self.arrays)
            file.flush()
            os.fsync(file.fileno())

    def time_restore(self, contender):
        if not self.is_limit:
            self.optimizer.restore(self.path, [self.variable])
            return
        with open(self.path, "rb") as file:
            file.read()
