"""Let processes fill one cache of kernels at once, and one read it; compare their bits with those without it."""

import json
import os
import subprocess
import sys
import tempfile

from work import Training, choose_layer, program


def stepped(kinds):
    """Return the digests after three steps, taken in the order of the kinds."""
    digests = {}
    for kind in kinds:
        training = Training(kind, 2)
        for k in range(3):
            training.step(k)
        digests[str(kind)] = training.digest()
    return digests


def told(processes, arguments, folder):
    """Start processes at once; return what each writes, beside its exit status."""
    variables = {**os.environ, "RMSPROP_CACHE": "1", "NUMBA_CACHE_DIR": folder}
    pipes = dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE)
    command = [sys.executable, "-W", "error", __file__, *arguments, "--backwards"]
    crowd = [
        subprocess.Popen(command[: len(command) - k % 2], text=True, env=variables, **pipes)
        for k in range(processes)
    ]
    for process in crowd:
        process.stdin.close()  # for which they wait
        process.stdin = None
    return [(*process.communicate(timeout=300), process.returncode) for process in crowd]


def main():
    parser = program(__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--one", action="store_true", help="be one of the processes")
    parser.add_argument("--backwards", action="store_true", help="begin with the last kind")
    given = parser.parse_args()
    choose_layer(given.layer)
    kinds = range(given.kinds)
    if given.one:
        import rmsprop_numba  # noqa: F401 (all are to be as far as this)

        sys.stdin.read()
        print(json.dumps(stepped(kinds[::-1] if given.backwards else kinds), sort_keys=True))
        return 0
    expected = (json.dumps(stepped(kinds), sort_keys=True) + "\n", "", 0)
    arguments = ["--one", "--layer", given.layer, "--kinds", str(given.kinds)]
    wrong = 0
    for _ in range(given.times):
        with tempfile.TemporaryDirectory() as folder:
            for processes in (given.processes, 1):
                for found in told(processes, arguments, folder):
                    if found != expected:
                        wrong += 1
                        print(*found)
    print(f"{given.times} times {given.processes} processes, {given.kinds} kinds: {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
