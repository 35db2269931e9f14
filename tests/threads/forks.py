"""Take steps in processes started after use, in each way; compare their bits with those of the parent."""

import multiprocessing
import sys

from work import Training, check_layer, choose_layer, program


def stepped(kind):
    """Return the digest after ten steps, and how long it may take is up to the caller."""
    training = Training(kind, 1)
    for k in range(10):
        training.step(k)
    return training.digest()


def main():
    parser = program(__doc__)
    parser.add_argument("--method", default="fork", help="fork, spawn, forkserver or joblib")
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    choose_layer(given.layer)
    kinds = [0, 2][: given.kinds]
    expected = [stepped(kind) for kind in kinds]
    check_layer(given.layer)
    wrong = 0
    for _ in range(given.times):
        if given.method == "joblib":
            from joblib import Parallel, delayed

            found = Parallel(n_jobs=2)(delayed(stepped)(kind) for kind in kinds)
        else:
            with multiprocessing.get_context(given.method).Pool(2) as pool:
                found = pool.map_async(stepped, kinds).get(timeout=60)  # a killed child would never answer
        wrong += found != expected
    print(f"{given.layer}: {given.times} times {given.method}: {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
