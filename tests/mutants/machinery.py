"""Faults that are seeded into copies of the project, each of which some test must catch."""

import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple, cast

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("rmsprop", "backends", "examples", "tests", "pyproject.toml", "README.md", "CHANGELOG.md")
PATIENCE = 120
"""Seconds after which the tests of a fault count as hanging."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["array_api_strict", "autograd", "hypothesis.extra.numpy", "ml_dtypes", "numba"])


class Mutant(NamedTuple):
    """A fault, and the tests of which one must fail.

    Attributes
    ----------
    name : str
    file : str
        Path from the root of the project.
    tests : str
        What pytest is given: the name of a file below `tests`, and with ``-k`` some of its tests.
    old, new : str
        What stands in the file, and what takes its place.
    devices : int
        GPUs that it takes to see the fault.
    count : int
        How often `old` stands in the file; all of them are replaced.
    """

    name: str
    file: str
    tests: str
    old: str
    new: str
    devices: int = 1
    count: int = 1


def tried(mutants: list[Mutant], marker: str, jobs: int, **environment: str) -> int:
    """Try all faults, and the same tests without any; print a table, and return how many rows of it are wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Path] = SimpleQueue()
        for k in range(jobs):
            copies.put(_copied(Path(folder) / str(k)))

        def row(mutant: Mutant) -> tuple[Mutant, bool, str]:
            copy = copies.get()
            try:
                return mutant, *outcome(mutant, copy, marker, environment)
            finally:
                copies.put(copy)

        for mutant, is_caught, text in pool.map(row, [*_sound(mutants), *mutants]):
            is_right = is_caught == bool(mutant.old)
            wrong += not is_right
            columns = "" if is_right else "WRONG", mutant.name, mutant.file, mutant.tests, text
            print(f"| {' | '.join(columns)} |", flush=True)
    return wrong


def outcome(mutant: Mutant, copy: Path, marker: str, environment: dict[str, str]) -> tuple[bool, str]:
    """Run the tests on a copy of the project while that has the fault; tell whether one fails, and which."""
    if not mutant.old:
        return _run(mutant.tests, copy, marker, environment, 10 * PATIENCE)
    original, file = ROOT / mutant.file, copy / mutant.file
    text = original.read_text()
    if text.count(mutant.old) != mutant.count:
        return False, f"{mutant.old!r} stands {text.count(mutant.old)} times in the file"
    try:
        file.write_text(text.replace(mutant.old, mutant.new))
        return _run(mutant.tests, copy, marker, environment, PATIENCE)
    finally:
        shutil.copy2(original, file)  # with its time, so that what has been compiled of it is used again


def _copied(copy: Path) -> Path:
    copy.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / part).exists():
            shutil.copy2(ROOT / part, copy / part)
    return copy


def _sound(mutants: Iterable[Mutant]) -> list[Mutant]:
    """Return what runs the tests of all faults without any: those of one file together."""
    words: dict[str, set[str]] = {}
    for mutant in mutants:
        file, _, each = mutant.tests.partition(" -k ")
        words.setdefault(file, set()).add(each.strip("'"))
    return [
        Mutant("no fault", "", file + f" -k '{' or '.join(sorted(each))}'" * ("" not in each), "", "")
        for file, each in words.items()
    ]


def _run(tests: str, copy: Path, marker: str, environment: dict[str, str], patience: float) -> tuple[bool, str]:
    """Run tests; tell whether they fail, hang or crash, and how."""
    with tempfile.NamedTemporaryFile("w+") as output:
        arguments = tests, str(copy), marker, environment, output.name
        process = FORKS.Process(target=_pytest, args=arguments)
        process.start()
        process.join(patience)
        with suppress(ProcessLookupError):
            os.killpg(cast("int", process.pid), signal.SIGKILL)  # and what it has started
        process.join()
        code, text = cast("int", process.exitcode), output.read()
    lines = text.splitlines() or [""]
    if code == -signal.SIGKILL:
        return True, f"hangs: not done after {patience} s"
    if code < 0:
        return True, f"crashes: {signal.Signals(-code).name}"
    if code > 1:
        raise RuntimeError(f"{tests} ended with {code}:\n{text}")
    failed = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    short = failed[0].partition("tests/")[2].partition(" - ")[0] if failed else lines[-1]
    return code == 1, short


def _pytest(tests: str, copy: str, marker: str, environment: dict[str, str], output: str) -> None:
    """Run tests in this process, which was forked off one that has imported most of what it takes."""
    os.setsid()
    with open(output, "w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(copy)
    paths = [copy, str(Path(copy) / "backends")]
    sys.path[:0] = paths
    os.environ.update(environment, PYTHONPATH=os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]))
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", marker, "--hypothesis-profile=mutants"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # it is about what was imported before
    name, _, words = tests.partition(" ")
    (file,) = Path("tests").rglob(name)
    sys.exit(pytest.main([*options, str(file), *shlex.split(words)]))
