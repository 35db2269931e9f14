"""Memory: of the state, and at its peak during steps."""

import math
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np

from benchmarks.comparison import CONTENDERS
from benchmarks.contenders import ours
from benchmarks.entrants import is_installed
from benchmarks.peers import PEERS
from benchmarks.scenarios import CENTERED, MOMENTUM, STATE_DTYPES, is_supported, one_array
from rmsprop import RMSprop

ELEMENTS = 10_000_000


class State:
    """Bytes of the state for each float32 element."""

    params = ([name or "float32" for name in STATE_DTYPES], ["plain", "momentum", "momentum, centered"])
    param_names = ("state_dtype", "variant")
    variants = {"plain": {}, "momentum": MOMENTUM, "momentum, centered": CENTERED}
    unit = "bytes per element"

    def track_state(self, state_dtype, variant):
        settings = dict(self.variants[variant])
        if state_dtype != "float32":
            settings["state_dtype"] = state_dtype
        if not is_supported(settings):
            return math.nan
        variable = np.zeros(1_000_000, np.float32)
        RMSprop(**settings).build([np.zeros(1)])  # what is imported and compiled at first does not count
        tracemalloc.start()
        optimizer = RMSprop(**settings)
        optimizer.build([variable])
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used / variable.size


class Peak:
    """Bytes for each element of all that a step needs at its peak: variable, gradient, state and temporaries."""

    params = CONTENDERS[1:]
    param_names = ("contender",)
    unit = "bytes per element"
    timeout = 120

    def setup(self, contender):
        if sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK):
            raise NotImplementedError("the peak is read, and set back, as Linux does")

    def track_peak(self, contender):
        if contender != "rmsprop" and not is_installed(PEERS[contender].package):
            return math.nan
        build = ours if contender == "rmsprop" else PEERS[contender].build
        scenario = one_array(ELEMENTS)
        build(one_array(1_000)).step()  # what is imported and compiled at first does not count
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
        made = build(scenario)
        for _ in range(3):
            made.step()
        return (resident("VmHWM") - before) / scenario.shapes[0][0]


def resident(name):
    """Return bytes in memory, now ("VmRSS") or at the peak ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
