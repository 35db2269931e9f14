"""Steps of rmsprop and its peers, and the limit that memory sets, all timed in turn on the same machine."""

import json
import math
import subprocess
import sys
from pathlib import Path

from benchmarks.scenarios import SCENARIOS, SMOKE

CONTENDERS = (
    "limit",
    "rmsprop",
    "NumPy in place",
    "torch",
    "torch foreach",
    "optax",
    "tf_keras",
    "tf_keras XLA",
    "Keras 3",
)


def setup_cache():
    """Return the median seconds of a step by scenario and contender: one process for each scenario."""
    times = {}
    for names in [list(SCENARIOS)] if SMOKE else [[name] for name in SCENARIOS]:
        command = [sys.executable, "-m", "benchmarks.race", *names]
        output = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, stdout=subprocess.PIPE).stdout
        times |= json.loads(output)
    return times


setup_cache.timeout = 1800


class Step:
    """Time of a step; NaN where a peer is not installed, or a scenario is not for it."""

    params = (list(SCENARIOS), CONTENDERS)
    param_names = ("scenario", "contender")
    unit = "seconds"

    def track_step(self, times, scenario, contender):
        return times[scenario].get(contender, math.nan)


class Ratio:
    """Time of a step over that of a loop that only streams the same arrays, and over the best peer's."""

    params = list(SCENARIOS)
    param_names = ("scenario",)
    unit = "ratio"

    def track_ratio_to_limit(self, times, scenario):
        return times[scenario].get("rmsprop", math.nan) / times[scenario].get("limit", math.nan)

    def track_ratio_to_best_peer(self, times, scenario):
        peers = [seconds for name, seconds in times[scenario].items() if name not in ("limit", "rmsprop")]
        return times[scenario].get("rmsprop", math.nan) / min(peers, default=math.nan)
