"""Times of steps on a GPU, after their results have been compared with those of NumPy."""

import statistics
import time

import contenders
import cupy
import numpy as np
from benchmarks.scenarios import SMOKE
from scenarios import dtype_of

SECONDS = 0 if SMOKE else 0.25
"""How long a contender is timed, at least."""
BATCH = 0 if SMOKE else 2e-3
"""Seconds of a sample at least: steps that are begun one after the other, and waited for at the end."""
COPIED = 10_000 if SMOKE else 1 << 30
"""Bytes that are copied to find the bandwidth."""


class WrongNumber(Exception):
    """A result that is not that of NumPy."""


def check(name, scenario):
    """Raise `WrongNumber` unless two steps have the results of NumPy, within the bound of the documentation."""
    (step, _, found), (other, _, expected) = contenders.ours(scenario), contenders.ours(scenario, np)
    for _ in range(2):
        step()
        other()
    eps = np.finfo(dtype_of(scenario)).eps
    rounding = 0.5 if "state_dtype" in scenario.settings else 16 * eps  # codes may be those of the next number
    for position, (given, wanted) in enumerate(zip(found, expected, strict=True)):
        off = np.abs(given.get() - wanted) > rounding * np.abs(wanted)  # which began at zero
        if off.any():
            where = np.unravel_index(off.argmax(), off.shape)
            raise WrongNumber(
                f"{name}: element {tuple(map(int, where))} of array {position} is {given[where].item()!r}, "
                f"on the processor {wanted[where].item()!r}"
            )


def seconds_of(step):
    """Return the median seconds of a step."""
    wait = cupy.cuda.Device().synchronize

    def sample(count):
        wait()
        begin = time.perf_counter()
        for _ in range(count):
            step()
        wait()
        return (time.perf_counter() - begin) / count

    sample(3)
    count = max(1, int(BATCH / sample(1)))
    samples, end = [sample(count)], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        samples.append(sample(count))
    return statistics.median(samples)


def bandwidth():
    """Return the bytes per second that a copy reads and writes."""
    a, b = (cupy.zeros(COPIED, np.uint8) for _ in range(2))
    return 2 * COPIED / seconds_of(lambda: cupy.copyto(b, a))


def race(scenario, speed):
    """Return the seconds of a step by contender."""
    found = {"limit": contenders.bytes_of(scenario) / speed, "rmsprop": seconds_of(contenders.ours(scenario)[0])}
    for name, step in contenders.peers(scenario).items():
        found[name] = seconds_of(step)
    return found
