"""Time contenders in turn, in one process: ``python -m benchmarks.race SCENARIO...`` prints medians as JSON.

What the limit is depends on the pages that arrays happen to get, so that times of two processes do not compare.
"""

import json
import statistics
import sys
import time

from benchmarks.entrants import entrants
from benchmarks.scenarios import SCENARIOS, SMOKE

ROUNDS = 1 if SMOKE else 7
STEPS = 1 if SMOKE else 3
"""Samples of each contender in each round, at least."""
SECONDS = 0 if SMOKE else 0.1
"""How long a contender is timed in each round, at least."""
PAUSE = 0.02
"""Seconds before each contender, until the threads of the one before have ceased to spin."""
SAMPLE = 2e-4
"""Seconds of a sample; shorter steps are timed several at a time."""


def race(scenario):
    """Return the median seconds of a step of each contender."""
    contenders = entrants(scenario)
    samples = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, contender in contenders.items():
            time.sleep(PAUSE)
            samples[name] += timed(contender, scenario.is_new)
    return {name: statistics.median(times) for name, times in samples.items()}


def timed(contender, is_new):
    """Return seconds of a step, several times."""
    contender.step()  # compiles at first; wakes the threads and fills the caches
    number = 1 if is_new else max(1, int(SAMPLE / seconds(contender.step, 1)))
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < STEPS or time.perf_counter() < end:
        if is_new:
            contender.renew()
        times.append(seconds(contender.step, number))
    return times


def seconds(step, number):
    begin = time.perf_counter()
    for _ in range(number):
        step()
    return (time.perf_counter() - begin) / number


if __name__ == "__main__":
    print(json.dumps({name: race(SCENARIOS[name]) for name in sys.argv[1:]}))
