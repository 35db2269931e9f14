"""Times saving and restoring against writing and reading the same bytes; takes megabytes, and a directory."""

import os
import pathlib
import sys
import tempfile
import time

import numpy as np

from rmsprop import RMSprop

ROUNDS = 5


def best(function):
    """Return the shortest of several times, in seconds."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def write(path, arrays):
    with open(path, "wb") as file:
        for array in arrays:
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def read(path, arrays):
    with open(path, "rb", buffering=0) as file:
        for array in arrays:
            view = array.reshape(-1).view(np.uint8).data
            while len(view):
                view = view[file.readinto(view[: 1 << 24]) :]


def main(megabytes, folder):
    """Print the times."""
    w = np.random.default_rng(0).random(megabytes * 2**20 // 8, np.float32)
    opt = RMSprop()
    opt.build([w])
    opt.set_weights([np.array(1), w])
    arrays, path, plain = [w, opt.weights[1].array], folder / "x.safetensors", folder / "plain"
    wrote, saved = best(lambda: write(plain, arrays)), best(lambda: opt.save(path, [w]))
    begin = time.perf_counter()
    saving = opt.save(path, [w], wait=False)
    returned = time.perf_counter() - begin
    saving.wait()
    reads, restored = best(lambda: read(plain, arrays)), best(lambda: opt.restore(path, [w]))
    print(f"{megabytes} MB: written in {wrote:.3f} s, saved in {saved:.3f} s, {saved / wrote:.2f} times as long")
    print(f"read in {reads:.3f} s, restored in {restored:.3f} s, {restored / reads:.2f} times as long")
    print(f"with wait=False, steps can go on after {returned:.3f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        main(int(sys.argv[1]), pathlib.Path(name))
