"""Seeded faults in the backend for CuPy, each of which some test must catch: ``python tests/mutants.py``.

It needs a CUDA device or a simulator of one. With two devices, the faults that only these show are tried, too.
The exit status is 1 if a fault goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """A fault: what stands in a file of the backend, what takes its place, and the tests that must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str
    devices: int = 1


MUTANTS = [
    Mutant(
        "epsilon at the other place",
        "source.py", "sqrt(variance + inner) + outer", "sqrt(variance + outer) + inner",
        "test_cupy.py -k oracle",
    ),
    Mutant(
        "complex gradients squared",
        "source.py", "x.real() * x.real() + x.imag() * x.imag()", "x.real() * x.real() - x.imag() * x.imag()",
        "test_cupy.py -k oracle",
    ),
    Mutant(
        "gradients of a list read one element further",
        "kernels.py", "[row[1] + lane];", "[row[1] + lane + 1];",
        "test_cupy.py -k on_the_host",
    ),
    Mutant(
        "last element of each row of the table left out",
        "kernels.py", "if (lane < row[0])", "if (lane + 1 < row[0])",
        "test_cupy.py -k on_the_host",
    ),
    Mutant(
        "addresses of the first gradients kept",
        "columns.py", "or not np.array_equal(numbers, self._last)", "",
        "test_cupy.py -k another_order",
    ),
    Mutant(
        "list launched on the current device",
        "lists.py", "with first.device:", "if True:",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "array updated on the current device",
        "step.py", "with array.device:", "if True:",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "rows summed by float atomics",
        "kernels.py", "source.formula(variant),\n        \"}\",\n    ]\n    tables",
        "'atomicAdd((float*)&v, 0);', source.formula(variant),\n        \"}\",\n    ]\n    tables",
        "test_cupy.py -k atomics",
    ),
    Mutant(
        "rows beyond the table written",
        "kernels.py", "row < 0 || row >= height", "row < 0 || row > height",
        "test_cupy.py -k out_of_range",
    ),
    Mutant(
        "captured step shares its plan",
        "kept.py", "    captured = Kept(own.replays)", "    captured = own\n    own.captured = own.replays",
        "test_cupy_graphs.py -k between",
    ),
    Mutant(
        "captured numbers frozen",
        "captures.py", "is_double = ", "words = words.copy()\n        is_double = ",
        "test_cupy_graphs.py -k 'replays_are and 8'",
    ),
]  # fmt: skip


def main() -> int:
    """Try all faults that the devices at hand can show."""
    import cupy

    devices = cupy.cuda.runtime.getDeviceCount()
    unnoticed = [mutant.name for mutant in MUTANTS if mutant.devices <= devices and not is_caught(mutant)]
    for name in unnoticed:
        print(f"UNNOTICED: {name}")
    return int(bool(unnoticed))


def is_caught(mutant: Mutant) -> bool:
    """Run the tests on a copy of the project that has the fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("rmsprop", "backends", "tests", "pyproject.toml"):
            copied = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copied(ROOT / part, copy / part)
        file = copy / "backends" / "rmsprop_cupy" / mutant.file
        text = file.read_text()
        if mutant.old not in text:
            raise LookupError(f"{mutant.name}: {mutant.file} does not contain {mutant.old!r}.")
        file.write_text(text.replace(mutant.old, mutant.new))
        path = os.pathsep.join([str(copy), str(copy / "backends"), os.environ.get("PYTHONPATH", "")])
        tests = f"{sys.executable} -m pytest -q -x -p no:cacheprovider -m gpu tests/{mutant.tests}"
        done = subprocess.run(
            tests, shell=True, cwd=copy, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
    reasons = [line for line in done.stdout.splitlines() if line.startswith("E  ")] or ["E   nothing noticed"]
    print(f"{mutant.name}: {reasons[0][4:].strip()}", flush=True)
    return done.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
