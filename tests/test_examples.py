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


def test_ptychography_recovers_the_object_and_tells_where_its_figure_is(tmp_path, capsys):
    result = example("ptychography").main(["--small", "--output", str(tmp_path)])
    assert f"figure: {tmp_path / 'ptychography.png'}\n" in capsys.readouterr().out
    assert result.object_error < 0.05
    assert result.loss < 2 * result.noise
    with (tmp_path / "ptychography.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 100
    assert (tmp_path / "ptychography.png").stat().st_size > 10_000


@pytest.mark.parametrize("obstacle", ["file for folder", "folder for figure", "folder for table", "no permission"])
def test_ptychography_fails_before_the_work_if_its_figure_cannot_be_written(obstacle, tmp_path, monkeypatch):
    folder = tmp_path / "output"
    if obstacle == "file for folder":
        folder.touch()
    elif obstacle == "no permission":  # which may not keep root from writing
        monkeypatch.setattr(Path, "open", lambda path, *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    else:
        (folder / f"ptychography.{'png' if 'figure' in obstacle else 'csv'}").mkdir(parents=True)
    module = example("ptychography")
    monkeypatch.setattr(module, "demonstrate", None)  # the work
    with pytest.raises(SystemExit, match="--output .*output: the results can't be written there"):
        module.main(["--small", "--output", str(folder)])


def test_ptychography_leaves_earlier_results_until_there_are_others(tmp_path):
    module = example("ptychography")
    module.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "ptychography.png").write_bytes(b"earlier")
    module.check_writable(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_ptychography_says_what_the_cupy_backend_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(SystemExit, match="CuPy"):
        example("ptychography").main(["--backend", "cupy", "--output", str(tmp_path)])


def test_digits_are_classified_with_an_accuracy_above_95_percent():
    assert example("digits").main([]) > 0.95
