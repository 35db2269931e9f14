"""The examples reach what they are to show."""

import csv
from pathlib import Path

import pytest


def test_ptychography_recovers_the_object_better_than_other_methods_and_tells_where_its_figure_is(
    example, tmp_path, capsys
):
    result = example("ptychography").main(["--small", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"figure: {tmp_path / 'ptychography.png'}\n" in printed
    told = [line for line in printed.splitlines() if "relative error" in line]
    errors = {line.split(":")[0]: float(line.split()[-1]) for line in told}
    assert list(errors) == ["RMSprop", "mPIE", "ePIE"]
    assert errors["RMSprop"] < min(0.01, errors["mPIE"] / 2, errors["ePIE"] / 2)
    assert errors["ePIE"] < 0.2  # which work, too
    assert result.object_error == pytest.approx(errors["RMSprop"], abs=1e-4)
    assert result.loss < result.noise
    with (tmp_path / "ptychography.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [*range(1, 61)]
    for name in errors:
        assert float(rows[-1][name]) < float(rows[0][name]) / 100
    assert (tmp_path / "ptychography.png").stat().st_size > 10_000


@pytest.mark.parametrize("obstacle", ["file for folder", "folder for figure", "folder for table", "no permission"])
def test_ptychography_fails_before_the_work_if_its_figure_cannot_be_written(
    obstacle, example, tmp_path, monkeypatch
):
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


def test_ptychography_leaves_earlier_results_until_there_are_others(example, tmp_path):
    module = example("ptychography")
    module.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "ptychography.png").write_bytes(b"earlier")
    module.check_writable(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"earlier"]


def test_ptychography_says_what_the_cupy_backend_needs(example, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(SystemExit, match="CuPy"):
        example("ptychography").main(["--backend", "cupy", "--output", str(tmp_path)])


def test_digits_are_classified_with_an_accuracy_above_95_percent_and_a_figure(example, tmp_path, capsys):
    assert example("digits").main(["--output", str(tmp_path)]) > 0.95
    assert f"figure: {tmp_path / 'digits.png'}\n" in capsys.readouterr().out
    assert (tmp_path / "digits.png").stat().st_size > 10_000
