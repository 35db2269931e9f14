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


def kill_one(path, present, delay):
    """Let a process save what comes after the present number, kill it; return what may be in the file."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_for_ever(path, sender, present + 1)
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


def number_in(path, allowed):
    """Return the number in a file, and what is wrong with it, None if nothing is."""
    opt, w = RMSprop(momentum=0.5), np.zeros(SHAPE, np.float32)
    try:
        opt.restore(path, [w])
    except Exception as error:
        return max(allowed), f"{type(error).__name__}: {error}"
    numbers = {float(x) for a in (w, *opt.get_weights()) for x in (np.min(a), np.max(a))}
    number = int(opt.iterations)
    is_good = numbers == {number} and number in allowed
    return number, None if is_good else f"numbers {numbers}, {number}; expected one of {allowed}"


def run(count, folder):
    """Return faults, the number of saves that were interrupted, and how many files are left over at the end."""
    path, rng, faults, orphans, present = pathlib.Path(folder) / "x.safetensors", random.Random(0), [], 0, 1
    opt, w = numbered(present)
    opt.save(path, [w])
    seen = set()
    for _ in range(count):
        allowed = kill_one(path, present, rng.random() * 0.06)
        present, fault = number_in(path, allowed)
        if fault:
            faults.append(fault)
        left = {name for name in os.listdir(folder) if name.endswith(SUFFIX)}
        orphans, seen = orphans + len(left - seen), seen | left
    opt.save(path, [w])
    return faults, orphans, len(os.listdir(folder)) - 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as folder:
        faults, orphans, left = run(int(sys.argv[1]), folder)
    print(f"{sys.argv[1]} killed; {len(faults)} faults {faults[:3]}")
    print(f"{orphans} left an unfinished file, {left} of which were still there after the next save")
