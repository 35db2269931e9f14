"""Files that are no sound checkpoints are refused, and nothing has changed then."""

import hashlib
import json
import os
import runpy
import subprocess
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from rmsprop import CheckpointError, RMSprop
from rmsprop.checkpoints import layout

PROGRAM = Path(__file__).parent / "programs" / "mutated.py"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def saved(path):
    """Return the path of a sound checkpoint, of one variable w."""
    opt, w = RMSprop(), np.arange(12.0).reshape(4, 3)
    opt.build([w])
    opt.set_weights([np.array(3), np.ones((4, 3))])
    opt.save(path, {"w": w})
    return path


def rewritten(path, change):
    """Change the header of a file, as text, and sign it anew."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = change(data[8 : 8 + length].decode().rstrip()).encode()
    header += b" " * (-len(header) % 8)
    data = len(header).to_bytes(8, "little") + header + data[8 + length : -32]
    path.write_bytes(data + digest_of(data))


def digest_of(data):
    """Return the digest of version 2."""
    pieces = [data[begin : begin + 2**20] for begin in range(0, len(data), 2**20)]
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).digest()


def refusal(path):
    """Return why a file is refused, by both ways to read it."""
    messages = []
    opt, w = RMSprop(), np.zeros((4, 3))
    for read in (lambda: RMSprop.load(path), lambda: opt.restore(path, {"w": w})):
        with pytest.raises(CheckpointError) as caught:
            read()
        messages.append(str(caught.value))
    assert str(path) in messages[0] == messages[1]
    assert not w.any()
    assert len(opt.weights) == 1
    return messages[0]


def test_mutants_are_refused_and_change_nothing(tmp_path):
    outcomes = runpy.run_path(PROGRAM)["run"](1500, 0, tmp_path)
    assert {outcome for (_, outcome) in outcomes} <= {"refused", "accepted"}
    assert outcomes["wrong digest", "accepted"] == 0
    assert outcomes["wrong digest", "refused"] > 800
    assert outcomes["right digest", "refused"] > 200


def test_every_single_bit_counts(saved):
    original = saved.read_bytes()
    for position in range(0, len(original), 7):
        data = bytearray(original)
        data[position] ^= 1 << position % 8
        saved.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"checkpoint.safetensors is (no checkpoint|damaged)"):
            RMSprop.load(saved)


def test_every_length_but_the_right_one_is_refused(saved):
    original = saved.read_bytes()
    for length in [*range(0, len(original), 13), len(original) - 1]:
        saved.write_bytes(original[:length])
        assert "is no checkpoint" in refusal(saved)
    saved.write_bytes(original + b"\0")
    assert "cut off, or has been added to" in refusal(saved)


@pytest.mark.parametrize("length", [2**20, 2**31, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_claims_gigabytes_takes_no_memory(length, saved):
    saved.write_bytes(length.to_bytes(8, "little") + saved.read_bytes()[8:])
    tracemalloc.start()
    try:
        assert f"its header would have {length} bytes, but the file has" in refusal(saved)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_a_header_that_is_a_heap_of_objects_takes_no_memory(saved):
    rewritten(saved, lambda text: '{"__metadata__":' + "[" + "[]," * 300_000 + "[]]}")
    tracemalloc.start()
    try:
        assert "its header is none of safetensors" in refusal(saved)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * saved.stat().st_size


def test_reading_takes_at_most_twice_the_file(path):
    opt, w = RMSprop(momentum=0.9, state_dtype="uint8"), np.ones((300, 1000), np.float32)
    opt.build([w])
    opt.save(path, [w])
    RMSprop.load(path)  # what is imported at first does not count
    tracemalloc.start()
    try:
        again = RMSprop.load(path)
        again.build([w])
        again.restore(path, [w])
        del again
        again = RMSprop(momentum=0.9, state_dtype="uint8")
        again.restore(path, [w])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * path.stat().st_size + 64 * 1024


FORGED = {
    "twice": (lambda t: t.replace('"slots/rms/w"', '"iterations"'), "not what would be written"),
    "spaces": (lambda t: t.replace('"F64","shape"', '"F64", "shape"'), "none of safetensors"),
    "other format": (lambda t: t.replace('"format":"rmsprop"', '"format":"pt"'), "its format is 'pt'"),
    "later version": (
        lambda t: t.replace('"version":"2"', '"version":"3"'),
        "version 3; this release .* versions 1 and 2",
    ),
    "other dtype": (lambda t: t.replace('"dtype":"F64"', '"dtype":"I64"'), "held as I64"),
    "unknown dtype": (lambda t: t.replace('"dtype":"I64"', '"dtype":"F8_E4M3"'), "has the dtype F8_E4M3"),
    "other shape": (lambda t: t.replace('"shape":[4,3]', '"shape":[3,4]'), "held as F64 of shape"),
    "object dtype": (lambda t: t.replace('"float64[4,3]"', '"object[4,3]"'), "object is no dtype of numbers"),
    "overlap": (lambda t: t.replace("[8,104]", "[0,96]"), "takes 96 bytes from 8 on"),
    "no digest": (lambda t: t.replace('"sha256"', '"slots/x/w"'), "its last array is no digest"),
    "slot of nobody": (
        lambda t: t.replace('"slots/rms/w"', '"slots/rms/x"'),
        "no checkpoint of an optimizer: it lacks 'x'",
    ),
    "unknown part": (lambda t: t.replace('"slots/rms/w"', '"parts/rms/w"'), "parts RMSprop/w/rms"),
    "no iterations": (lambda t: t.replace('"iterations"', '"slots/a/w"'), "iterations"),
    "no settings": (lambda t: t.replace('"optimizer"', '"optimiser"'), "'optimizer'"),
    "settings that are code": (lambda t: t.replace(r"\"rho\": 0.9", r"\"rho\": {\"code\": \"callable\"}"), "rho"),
    "state dtype": (lambda t: t.replace(r"\"rho\": 0.9", r"\"rho\": 0.9, \"state_dtype\": \"uint8\""), "size"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_forgeries_with_a_right_digest_are_refused_for_what_they_are(forgery, saved):
    change, message = FORGED[forgery]
    before = saved.read_bytes()
    rewritten(saved, change)
    assert saved.read_bytes() != before
    with pytest.raises(CheckpointError, match=message):
        RMSprop.load(saved)


def negative(slot):
    slot.assign(np.array([[1, -1]]) if slot.dtype.kind == "f" else np.array([[1, 1 - 1j]]))


def negative_scales(slot):
    slot.scales[...] = -1


def negative_code(slot):
    slot.codes[-1] = -16384  # -2.0


AVERAGES = {
    "real": (np.ones((1, 2)), {}, "rms", negative),
    "halves": (np.ones((1, 2), np.float16), {}, "rms", negative),
    "imaginary part": (np.ones((1, 2), complex), {"complex_as_real": True}, "rms", negative),
    "2 bytes": (np.ones((1, 2)), {"state_dtype": "bfloat16"}, "rms", negative_code),
    "scales": (np.ones((1, 2)), {"state_dtype": "uint8"}, "rms", negative_scales),
    "scales of momentum": (
        np.ones((1, 2)),
        {"state_dtype": "uint8", "momentum": 0.9},
        "momentum",
        negative_scales,
    ),
}


@pytest.mark.parametrize("case", AVERAGES)
def test_averages_of_squares_that_are_negative_are_refused_with_a_right_digest(case, path):
    w, settings, name, spoil = AVERAGES[case]
    opt, other = RMSprop(**settings), RMSprop(**settings)
    for optimizer in (opt, other):
        optimizer.build([w])
    spoil(opt.get_slot(w, name))
    opt.save(path, [w])
    for read in (lambda: RMSprop.load(path), lambda: other.restore(path, [w])):
        with pytest.raises(CheckpointError, match=f"RMSprop/0/{name} .*negative numbers"):
            read()
    assert not any(weight.any() for weight in other.get_weights())


@pytest.mark.parametrize("count", [-1, -(2**63), 2**63 - 1, 2**62 + 1])
def test_counts_that_can_not_be_counted_on_from_are_refused_with_a_right_digest(count, path):
    opt, w = RMSprop(), np.ones(2)
    opt.build([w])
    opt.iterations.array[()] = count
    opt.save(path, [w])
    with pytest.raises(CheckpointError, match=r"iterations is a whole number .* up to 2\*\*62"):
        RMSprop.load(path)


WITHOUT_ML_DTYPES = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np, rmsprop
w, other = np.ones(2), np.ones(2)
for read in (rmsprop.RMSprop.load, lambda path: rmsprop.RMSprop().restore(path, {"w": w, "other": other})):
    try:
        read(sys.argv[1])
    except rmsprop.CheckpointError as error:
        print(error)
"""


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float4_e2m1fn", "int4"])
def test_a_dtype_of_ml_dtypes_that_is_missing_is_a_checkpoint_error_that_names_both(dtype, path):
    opt, w = RMSprop(), np.ones(2)
    opt.build([w])
    opt.save(path, {"w": w, "other": np.ones(2, getattr(ml_dtypes, dtype))})
    command = [sys.executable, "-c", WITHOUT_ML_DTYPES, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{path} is no checkpoint: {dtype} needs the package ml_dtypes.\n" * 2


def test_slots_of_another_dtype_than_their_variable_with_a_right_digest_are_refused(path):
    opt, w = RMSprop(), np.ones(5)
    opt.build([w])
    opt.save(path)
    rewritten(path, lambda text: text.replace('"variables/0":"float64[5]"', '"variables/0":"float32[5]"'))
    with pytest.raises(CheckpointError, match="expected float32"):
        RMSprop.load(path)


@pytest.mark.parametrize(("old", "new"), [('"dtype":"U8","shape":[70]', '"dtype":"I8","shape":[70]')])
def test_codes_of_another_kind_with_a_right_digest_are_refused(old, new, path):
    opt, w = RMSprop(state_dtype="uint8"), np.ones(70, np.float32)
    opt.build([w])
    opt.save(path)
    before = path.read_bytes()
    rewritten(path, lambda text: text.replace(old, new))
    assert path.read_bytes() != before
    with pytest.raises(CheckpointError, match="expected .*uint8"):
        RMSprop.load(path)


NUMBERS = '"numbers": {"has_momentum": true, "skipped": 0}'
SCHEDULE = '{"class_name": "os.system", "config": {}}'
TOLD = {
    f'{{"settings": {{"name": "x", "gradient_aggregator": "print"}}, {NUMBERS}}}': "not those of an|must be",
    f'{{"settings": {{"name": "x", "lr": 1.0}}, {NUMBERS}}}': "not those of an optimizer|lr",
    f'{{"settings": {{"name": "x", "learning_rate": {SCHEDULE}}}, {NUMBERS}}}': "class 'os.system'",
    '{"settings": {"name": "x", "momentum": 0.5}, "numbers": {"has_momentum": false}}': "it had no momentum",
    '{"settings": {"name": "x"}, "numbers": {}}': "its numbers are {}",
    '{"settings": {"name": "x"}}': "it lacks 'numbers'",
    f'{{"settings": {"[" * 100_000 + "]" * 100_000}}}': "recursion",
    f'{{"settings": {{"name": "x"}}, {NUMBERS}}}' + " " * 2**20: "its settings take",
    "[]": "list indices",
    "": "Expecting value",
}


@pytest.mark.parametrize("told", TOLD, ids=lambda told: told[:60])
def test_settings_that_no_optimizer_has_are_refused(told, saved):
    def change(text):
        header = json.loads(text)
        header["__metadata__"]["optimizer"] = told
        return json.dumps(header, separators=(",", ":"))

    rewritten(saved, change)
    with pytest.raises(CheckpointError, match=TOLD[told]):
        RMSprop.load(saved)


def test_other_files_are_refused_without_waiting_for_them(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(CheckpointError, match="no regular file"):
            RMSprop.load(other)
    with pytest.raises(FileNotFoundError):
        RMSprop.load(tmp_path / "nothing")


def test_the_package_safetensors_reads_the_file(saved):
    arrays = safetensors.numpy.load_file(saved)
    assert (arrays["variables/w"] == np.arange(12.0).reshape(4, 3)).all()
    assert (arrays["slots/rms/w"] == 1).all()
    assert arrays["iterations"] == 3
    assert arrays["sha256"].tobytes() == digest_of(saved.read_bytes()[:-32])


@pytest.mark.parametrize("extra", [-1, 0, 1])  # bytes beside a whole number of pieces
@pytest.mark.parametrize("pieces", [1, 2, 7, 40])
def test_the_digest_is_that_of_the_digests_of_its_pieces(path, pieces, extra):
    RMSprop().save(path, {"w": np.zeros(0, np.uint8)})
    rest = path.stat().st_size - 32
    size = pieces * 2**20 - rest + extra
    w = np.arange(size).astype(np.uint8)
    for _ in range(3):  # the header grows with the number of digits
        RMSprop().save(path, {"w": w})
        size -= path.stat().st_size - 32 - pieces * 2**20 - extra
        w = np.arange(size).astype(np.uint8)
    data = path.read_bytes()
    assert len(data) - 32 == pieces * 2**20 + extra
    assert data[-32:] == digest_of(data[:-32])
    again = np.zeros_like(w)
    RMSprop().restore(path, {"w": again})
    assert (again == w).all()


def test_files_that_the_package_safetensors_wrote_are_refused(path):
    safetensors.numpy.save_file({"w": np.ones(30)}, path)
    assert "is no checkpoint" in refusal(path)


@pytest.mark.parametrize("change", ["cut", "overwrite"])
def test_a_file_that_is_changed_in_place_while_it_is_read_is_refused(change, saved, monkeypatch):
    read_all = layout._read_all
    other = saved.with_name("other")
    opt, w = RMSprop(), np.zeros((3, 4))
    opt.build([w])
    opt.set_weights([np.array(3), np.ones((3, 4))])
    opt.save(other, {"w": w})
    assert other.stat().st_size == saved.stat().st_size

    def late(*arguments):
        saved.write_bytes(other.read_bytes()[: -1 if change == "cut" else None])
        return read_all(*arguments)

    monkeypatch.setattr(layout, "_read_all", late)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        RMSprop.load(saved)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(saved):
    code = f"""
import numpy as np, os, rmsprop
from rmsprop.checkpoints import layout
original, path = layout._read_all, {str(saved)!r}
def slow(*arguments):
    opt, w = rmsprop.RMSprop(), np.ones(1000)
    opt.save(path, [w])
    return original(*arguments)
layout._read_all = slow
print(int(rmsprop.RMSprop.load(path).iterations))
layout._read_all = original
print(int(rmsprop.RMSprop.load(path).iterations))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n0\n"
