"""The limit that memory sets: a loop that only streams the arrays of a step, and the ratio to it."""

import statistics
import time

import numba


@numba.njit(parallel=True, error_model="numpy")
def stream(g, r, v):
    """Read three arrays and write two, as a step without momentum does."""
    for i in numba.prange(v.size):
        x = g[i]
        y = r[i]
        z = v[i]
        r[i] = y + x
        v[i] = z - x


def ratio_to_limit(step, g, r, v, rounds):
    """Return the median time of a step over that of the limit, each timed in turn on the same arrays."""
    keep_r, keep_v = r.copy(), v.copy()
    stream(g, r, v)
    times = {step: [], stream: []}
    for _ in range(rounds):
        for function, arguments in ((step, ()), (stream, (g, r, v))):
            begin = time.perf_counter()
            function(*arguments)
            times[function].append(time.perf_counter() - begin)
        r[:], v[:] = keep_r, keep_v
    return statistics.median(times[step]) / statistics.median(times[stream])
