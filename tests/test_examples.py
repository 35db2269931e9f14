"""The examples reach what they are to show."""

import csv
import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    """Return an example as a module; skip without the packages of the extra 'demo'."""
    for package in ("matplotlib", "skimage", "sklearn", "tqdm"):
        pytest.importorskip(package, reason="the examples need the extra 'demo'")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ptychography_recovers_the_object(tmp_path):
    result = example("ptychography").main(["--small", "--output", str(tmp_path)])
    assert result.object_error < 0.05
    assert result.loss < 2 * result.noise
    with (tmp_path / "ptychography.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 100
    assert (tmp_path / "ptychography.png").stat().st_size > 10_000


def test_ptychography_says_what_the_cupy_backend_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(SystemExit, match="CuPy"):
        example("ptychography").main(["--backend", "cupy", "--output", str(tmp_path)])


def test_digits_are_classified_with_an_accuracy_above_95_percent():
    assert example("digits").main([]) > 0.95
