"""The seeded faults of tests/mutants, which `make nightly` tries, stand where they are looked for."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "mutants"
INHERITED = ROOT / "rmsprop" / "testing" / "backend_tests.py"
LISTS = ["checks", "conventions", "files", "gpu", "kernels", "replays", "replicas", "shared", "tensors"]


@pytest.mark.parametrize("name", LISTS)
def test_each_fault_can_be_seeded_and_has_tests(monkeypatch, name):
    monkeypatch.syspath_prepend(FOLDER)
    mutants = runpy.run_path(str(FOLDER / f"{name}.py"))["MUTANTS"]
    assert len({m.name for m in mutants}) == len(mutants)
    for mutant in mutants:
        assert (ROOT / mutant.file).read_text().count(mutant.old) == mutant.count, mutant
        file, _, words = mutant.tests.partition(" -k ")
        (path,) = (ROOT / "tests").rglob(file)
        tests = path.read_text() + INHERITED.read_text()
        for word in {*re.findall(r"[a-z_]{4,}", words)}:
            assert word in tests, mutant


def test_all_lists_of_faults_are_tried():
    assert sorted({f.stem for f in FOLDER.glob("*.py")} - {"__main__", "machinery"}) == LISTS
