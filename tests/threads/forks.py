"""Take steps in processes started after use, in each way; compare their bits with those of the parent."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from work import Training, check_layer, choose_layer, program

START = ("fork", "spawn", "forkserver")
METHODS = (*START, "executor", "loky", "joblib")
"""Those of multiprocessing; concurrent.futures; the backends "loky" and "multiprocessing" of joblib."""


def stepped(kind, layer):
    """Return the digest after ten steps; a process that was not forked is to choose its layer itself."""
    is_new = "numba" not in sys.modules
    if is_new:
        choose_layer(layer)
    training = Training(kind, 1)
    for k in range(10):
        training.step(k)
    if is_new and kind == 0:  # which has an array that takes several threads
        check_layer(layer)
    return training.digest()


def found_by(method, calls):
    """Return what `stepped` returns for each call, in two new processes."""
    if method in START:
        with multiprocessing.get_context(method).Pool(2) as pool:
            return pool.starmap_async(stepped, calls).get(timeout=60)  # a killed child would never answer
    if method == "executor":
        with ProcessPoolExecutor(2) as pool:
            return [*pool.map(stepped, *zip(*calls, strict=True), timeout=60)]
    from joblib import Parallel, delayed

    backend = "loky" if method == "loky" else "multiprocessing"
    with Parallel(2, backend, timeout=60) as pool:
        return pool(delayed(stepped)(*call) for call in calls)


def main():
    parser = program(__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    choose_layer(given.layer)
    calls = [(kind, given.layer) for kind in [0, 2][: given.kinds]]
    expected = [stepped(*call) for call in calls]
    check_layer(given.layer)
    wrong = 0
    for method in given.methods:
        differ = sum(found_by(method, calls) != expected for _ in range(given.times))
        print(f"{given.layer}: {given.times} times {method}: {differ} wrong", flush=True)
        wrong += differ
    return wrong


if __name__ == "__main__":
    sys.exit(main())
