"""Seeded faults in the backend for CuPy, each of which some test must catch: ``python tests/mutants.py``.

It needs a CUDA device or a simulator of one. With two devices, the faults that only these show are tried, too.
The exit status is 1 if a fault goes unnoticed, or a test fails without any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
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
        "kernels launched on the current device",
        "launches.py", "        with launch.device:\n            launch", "        if True:\n            launch",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "list planned on the current device",
        "lists.py", "with first.device:", "if True:",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "gradient copied on the current device",
        "step.py", "with arrays[i].device:", "if True:",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "one device not waiting for another",
        "devices.py", "wait_event(event)", "is_capturing()",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "gradients on other devices taken",
        "step.py", "part.data.device_id != device", "False",
        "test_cupy_devices.py", devices=2,
    ),
    Mutant(
        "squares summed by float atomics",
        "kernels.py", "if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];",
        "sums[blockIdx.x] = 0; __syncthreads(); atomicAdd(&sums[blockIdx.x], total);",
        "test_cupy.py -k atomics",
    ),
    Mutant(
        "rows beyond the table written",
        "kernels.py", "row < 0 || row >= height", "row < 0 || row > height",
        "test_cupy.py -k out_of_range",
    ),
    Mutant(
        "captured step shares its plan",
        "kept.py", "return Kept(len(parameters), Captured(hyper))", "pass",
        "test_cupy_graphs.py -k between",
    ),
    Mutant(
        "captured numbers frozen",
        "captures.py", "with self.device:\n            self._column.write(_words(hyper))",
        "hasattr(self, 'first') or self._column.write(_words(hyper)); self.first = True",
        "test_cupy_graphs.py -k 'replays_are and 8'",
    ),
    Mutant(
        "captured before its tables are there",
        "captures.py", "        stream.synchronize()\n", "",
        "test_cupy_pending.py -k captured",
    ),
    Mutant(
        "gradients of a captured step let go",
        "kept.py", "self.gradients += gradients", "pass",
        "test_cupy_graphs.py -k stay_alive",
    ),
    Mutant(
        "memory used again before it has been copied",
        "columns.py", "hold(pinned)", "pass",
        "test_cupy_pending.py -k without_waiting",
    ),
    Mutant(
        "count of missed rows let go",
        "misses.py", "hold(self)", "pass",
        "test_cupy_pending.py -k gone",
    ),
    Mutant(
        "table of another formula used",
        "lists.py", "(plan.formula, plan.positions) != (_formula(hyper), positions)",
        "plan.positions != positions",
        "test_cupy_pending.py -k formulas",
    ),
    Mutant(
        "kernels compiled one after the other",
        "launches.py", "if compiled_for not in _compiled", "if False",
        "test_cupy.py -k compile",
    ),
    Mutant(
        "tables and slots gone with their optimizer",
        "kept.py", "hold(things, event)", "pass",
        "test_cupy_pending.py -k 'another_stream_is_done'",
    ),
    Mutant(
        "captured step gone when it is discarded",
        "kept.py", "                hold(things)\n", "                pass\n",
        "test_cupy_pending.py -k discarded",
    ),
    Mutant(
        "aliases not looked for",
        "step.py", "if is_shared:", "if False:",
        "test_cupy.py -k in_the_memory",
    ),
]  # fmt: skip


def main() -> int:
    """Try all faults that the devices at hand can show."""
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    mutants = [mutant for mutant in MUTANTS if mutant.devices <= count]
    sound = [Mutant("no fault", "__init__.py", "", "", tests) for tests in sorted({m.tests for m in mutants})]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        failures = list(pool.map(failure, [*sound, *mutants]))
    wrong = 0
    for mutant, reason in zip([*sound, *mutants], failures, strict=True):
        is_right = (reason is None) == (mutant in sound)
        wrong += not is_right
        print(f"{'' if is_right else 'WRONG: '}{mutant.name}, {mutant.tests}: {reason or 'passes'}")
    return int(wrong > 0)


def failure(mutant: Mutant) -> str | None:
    """Run the tests on a copy of the project that has the fault; return what they complain of."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("rmsprop", "backends", "examples", "tests", "pyproject.toml"):
            copied = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copied(ROOT / part, copy / part)
        file = copy / "backends" / "rmsprop_cupy" / mutant.file
        text = file.read_text()
        if mutant.old not in text:
            raise LookupError(f"{mutant.name}: {mutant.file} does not contain {mutant.old!r}.")
        file.write_text(text.replace(mutant.old, mutant.new) if mutant.old else text)
        path = os.pathsep.join([str(copy), str(copy / "backends"), os.environ.get("PYTHONPATH", "")])
        tests = f"{sys.executable} -m pytest -q -x -p no:cacheprovider -m gpu tests/{mutant.tests}"
        done = subprocess.run(
            tests, shell=True, cwd=copy, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.name}: {tests} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    reasons = [line[4:].strip() for line in done.stdout.splitlines() if line.startswith("E  ")]
    return next(iter(reasons), "a test fails") if done.returncode else None


if __name__ == "__main__":
    sys.exit(main())
