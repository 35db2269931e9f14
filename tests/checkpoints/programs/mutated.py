"""Mutates checkpoints and reads them; takes how many, and a seed, and prints what came of it."""

import collections
import hashlib
import json
import pathlib
import random
import sys
import tempfile
import tracemalloc

import ml_dtypes  # noqa: F401 - not imported while memory is measured
import numpy as np

from rmsprop import CheckpointError, RMSprop, schedules

VARIANTS = [
    {},
    {"momentum": 0.9, "centered": True, "learning_rate": schedules.ExponentialDecay(0.1, 10, 0.5)},
    {"state_dtype": "uint8", "momentum": 0.5},
    {"state_dtype": "bfloat16", "complex_as_real": True},
]
ALLOWED = 64 * 1024
"""Bytes for Python's own objects, beyond twice the file."""


def example(settings):
    """Return an optimizer with state and its variables."""
    opt = RMSprop(**settings)
    variables = {"w": np.arange(96, dtype=np.float32).reshape(6, 16), "b/ü": np.ones(5)}
    if "state_dtype" not in settings:
        variables.update(z=np.ones((2, 3), np.complex128), h=np.ones(3, np.float16), e=np.ones((0, 2)))
    opt.build(variables)
    rng = np.random.default_rng(1)
    opt.set_weights([np.array(12), *[rng.random(s.shape).astype(s.dtype) for s in opt.weights[1:]]])
    return opt, variables


def state(opt, variables):
    """Return all bytes of an optimizer and its variables."""
    return [np.ascontiguousarray(a).tobytes() for a in (*variables.values(), *opt.get_weights())]


def flip_bits(data, rng):
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def set_bytes(data, rng):
    begin = rng.randrange(len(data))
    data[begin : begin + 8] = rng.choice([b"\0" * 8, b"\xff" * 8, b"{" * 8, rng.randbytes(8)])


def cut(data, rng):
    del data[rng.randrange(len(data)) :]


def remove(data, rng):
    begin = rng.randrange(len(data))
    del data[begin : begin + rng.choice([1, 8, 64])]


def repeat(data, rng):
    begin, end = sorted(rng.randrange(len(data)) for _ in range(2))
    data[end:end] = data[begin:end]


def append(data, rng):
    data += rng.randbytes(rng.choice([1, 8, 1000]))


def claim_length(data, rng):
    data[:8] = rng.choice([0, 1, 2**31, 2**40, 2**63, 2**64 - 1, len(data), len(data) - 8]).to_bytes(8, "little")


def replace(data, rng):
    data[:] = rng.randbytes(rng.choice([0, 1, 7, 8, 9, 39, 40, 41, 500]))


def put_noise(data, rng):
    begin = rng.randrange(8, len(data))
    data[begin : begin + rng.choice([2, 30, 300])] = rng.randbytes(rng.choice([2, 30, 300]))


BLIND = [flip_bits, set_bytes, cut, remove, repeat, append, claim_length, replace, put_noise]
WORDS = [
    *["", "F32", "F64", "U8", "BF16", "X", "sha256", "variables/w", "slots/rms/w", "codes/rms/w", "iterations"],
    *["float32[6,16]", "object[1]", "float64[4611686018427387904,8]", "complex64[0]", "2", "[]", "\ud800"],
    *["a" * 3000, "[" * 5000, "9" * 5000],
    '{"settings": {}, "numbers": {"has_momentum": true}}',
    '{"settings": {"name": "x", "lr": 1}, "numbers": {"has_momentum": true}}',
    '{"settings": [[[[1e999]]]], "numbers": {"has_momentum": 1}}',
]
NUMBERS = [0, 1, -1, 2, 3, 8, 2**31, 2**63, 2**64, 10**30, 1.5, None, True, "7", []]


def edit(value, rng, depth=0):
    """Return JSON that is a little different."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.8):
        items = list(value.items())
        i = rng.randrange(len(items))
        action = rng.random()
        if action < 0.6:
            items[i] = (items[i][0], edit(items[i][1], rng, depth + 1))
        elif action < 0.75:
            items[i] = (rng.choice(WORDS), items[i][1])
        elif action < 0.9:
            del items[i]
        else:
            rng.shuffle(items)
        return dict(items)
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], edit(value[i], rng, depth + 1), *value[i + 1 :]]
    if isinstance(value, str) and value.startswith("{") and rng.random() < 0.8:
        return json.dumps(edit(json.loads(value), rng))
    return rng.choice(NUMBERS if rng.random() < 0.5 else WORDS)


def edit_header(data, rng):
    """Change the header as one would who knows the format."""
    length = int.from_bytes(data[:8], "little")
    header = edit(json.loads(data[8 : 8 + length]), rng)
    text = json.dumps(header, separators=(",", ":")).encode()
    if rng.random() < 0.1:
        text = text.replace(b'"iterations":', b'"sha256":', 1)  # twice the same key
    text += b" " * (-len(text) % 8)
    data[: 8 + length] = len(text).to_bytes(8, "little") + text


def signed(data):
    """Give data the digest that belongs to it."""
    data[-32:] = hashlib.sha256(hashlib.sha256(data[:-32]).digest()).digest()  # it has one piece


def mutated(original, rng):
    """Return different data, and whether its digest is right, so that all else has to be refused for itself."""
    while True:
        data, is_signed = bytearray(original), rng.random() < 0.3
        if is_signed and rng.random() < 0.8:
            edit_header(data, rng)
        else:
            rng.choice(BLIND)(data, rng)
        if is_signed and len(data) > 40:
            signed(data)
        if data != original:
            return data, is_signed


def attempt(data, path, opt, variables, before):
    """Return what reading does: "refused", "accepted", or what is wrong with it."""
    path.write_bytes(data)
    tracemalloc.reset_peak()
    base, results = tracemalloc.get_traced_memory()[0], []
    for read in (lambda: RMSprop.load(path), lambda: opt.restore(path, variables)):
        try:
            read()
            results.append("accepted")
        except CheckpointError:
            results.append("refused")
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    peak = tracemalloc.get_traced_memory()[1] - base
    if peak > 2 * len(data) + ALLOWED:
        return f"{peak} bytes of memory for a file of {len(data)}"
    if results[1] == "refused" and state(opt, variables) != before:
        return "a part was restored"
    return "accepted" if "accepted" in results else "refused"


def run(count, seed, folder):
    """Return how many mutants had which outcome, by whether their digest was right."""
    path, outcomes, rng = pathlib.Path(folder) / "x.safetensors", collections.Counter(), random.Random(seed)
    originals = []
    for settings in VARIANTS:
        opt, variables = example(settings)
        opt.save(path, variables)
        RMSprop.load(path)
        opt.restore(path, variables)
        state(opt, variables)  # compiles what decodes slots, before memory is measured
        originals.append((settings, path.read_bytes(), opt, variables))
    tracemalloc.start()
    for i in range(count):
        settings, original, opt, variables = originals[i % len(originals)]
        before = state(opt, variables)
        data, is_signed = mutated(original, rng)
        outcome = attempt(data, path, opt, variables, before)
        outcomes["right digest" if is_signed else "wrong digest", outcome] += 1
        if outcome == "accepted":
            originals[i % len(originals)] = (settings, original, *example(settings))
    tracemalloc.stop()
    return outcomes


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None) as folder:
        for outcome, number in run(int(sys.argv[1]), int(sys.argv[2]), folder).most_common():
            print(number, *outcome)
