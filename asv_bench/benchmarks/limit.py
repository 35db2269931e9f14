"""The limit that memory sets: a loop that only streams the arrays of a step, and the ratio to it."""

import statistics
import time

import numba
import numpy as np


@numba.njit(parallel=True, error_model="numpy")
def stream(g, r, v):
    """Read three arrays and write two, as a step without momentum does, but leave their values."""
    for i in numba.prange(v.size):
        nothing = g[i] * np.float32(0)
        r[i] += nothing
        v[i] += nothing


def ratio_to_limit(step, g, r, v, rounds):
    """Return the median time of a step over that of the limit, each timed in turn on the same arrays."""
    stream(g, r, v)
    times = {step: [], stream: []}
    for _ in range(rounds):
        for function, arguments in ((step, ()), (stream, (g, r, v))):
            begin = time.perf_counter()
            function(*arguments)
            times[function].append(time.perf_counter() - begin)
    return statistics.median(times[step]) / statistics.median(times[stream])
