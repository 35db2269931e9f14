"""Kills processes while they save; takes how many, and a directory, and prints what was left."""

import os
import pathlib
import random
import signal
import sys
import tempfile
import time

import numpy as np

from rmsprop import RMSprop

SHAPE = (500, 1000)
SUFFIX = ".rmsprop-unfinished"


def numbered(number):
    """Return an optimizer and a variable all of whose numbers are the same."""
    opt, w = RMSprop(momentum=0.5), np.full(SHAPE, number, np.float32)
    opt.build([w])
    opt.set_weights([np.array(number), np.full(SHAPE, number), np.full(SHAPE, number)])
    return opt, w


def save_for_ever(path, pipe, first):
    """Save states with ever greater numbers; tell when each begins to be saved, and when it is."""
    number = first
    while True:
        opt, w = numbered(number)
        os.write(pipe, number.to_bytes(8, "little") + b"<")
        opt.save(path, [w])
        os.write(pipe, number.to_bytes(8, "little") + b">")
        number += 1


def kill_one(path, first, delay):
    """Start a process that saves, kill it, and return the numbers that may be in the file."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(path, sender, first)
        finally:
            os._exit(1)
    os.close(sender)
    told = os.read(receiver, 9)  # the first has begun
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while data := os.read(receiver, 9 * 4096):
        told += data
    os.close(receiver)
    last = told[-9:]
    number = int.from_bytes(last[:8], "little")
    return {number} if last[8:] == b">" else {number - 1, number}


def check(path, allowed):
    """Return what is wrong with a file, None if nothing is."""
    opt, w = RMSprop(momentum=0.5), np.zeros(SHAPE, np.float32)
    try:
        opt.restore(path, [w])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    numbers = {float(x) for a in (w, *opt.get_weights()) for x in (np.min(a), np.max(a))}
    if len(numbers) > 1 or int(opt.iterations) not in allowed:
        return f"numbers {numbers}; expected one of {allowed}"
    return None


def run(count, folder):
    """Return faults, the number of saves that were interrupted, and how many files are left over at the end."""
    path, rng, faults, orphans, latest = pathlib.Path(folder) / "x.safetensors", random.Random(0), [], 0, 1
    opt, w = numbered(latest)
    opt.save(path, [w])
    seen = set()
    for _ in range(count):
        allowed = kill_one(path, latest + 1, rng.random() * 0.06)
        fault = check(path, allowed)
        if fault:
            faults.append(fault)
        left = {name for name in os.listdir(folder) if name.endswith(SUFFIX)}
        orphans, seen = orphans + len(left - seen), seen | left
        latest = max(allowed)
    opt.save(path, [w])
    return faults, orphans, len(os.listdir(folder)) - 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        faults, orphans, left = run(int(sys.argv[1]), folder)
    print(f"{sys.argv[1]} killed; {len(faults)} faults {faults[:3]}")
    print(f"{orphans} left an unfinished file, {left} of which were still there after the next save")
