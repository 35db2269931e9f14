"""``python asv_bench/gpu``, which is `make gpu`, in its small form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytest.importorskip("matplotlib", reason="matplotlib is in the extra 'test'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]
COMMAND = [sys.executable, "asv_bench/gpu", "--small", "--no-tests", "--output"]
HOUSE = Path(__file__).resolve().parents[1]


def test_all_is_timed_written_and_recommended(tmp_path):
    done = subprocess.run([*COMMAND, str(tmp_path)], cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["is_small"]
    assert found["bytes_per_second"] > 0
    for name, seconds in found["seconds"].items():
        assert min(seconds["limit"], seconds["rmsprop"]) > 0, name
    assert "ElementwiseKernel" in found["seconds"]["1 × 1,000"]
    assert {choice["what"].rpartition(".")[2] for choice in found["choices"]} == {"FEW", "SPLIT", "BLOCK"}
    assert all(choice["relative"][choice["today"]] == 1 for choice in found["choices"])
    page = (tmp_path / "gpu.md").read_text()
    assert "these times mean nothing" in page
    assert all(name in page for name in found["seconds"])
    assert (tmp_path / "gpu.svg").stat().st_size > 0


def test_it_stops_at_the_first_wrong_number(tmp_path):
    wrong = f"""
import sys
sys.argv = {["gpu", *COMMAND[2:], str(tmp_path)]!r}
sys.path.insert(0, "asv_bench/gpu")
from rmsprop_cupy import source
source.PREAMBLE = source.PREAMBLE.replace("return x / divisor;", "return x / divisor * R(1.001);")
import runpy
runpy.run_path("asv_bench/gpu", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", wrong], cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong number: 1 × 1,000: element" in done.stderr
    assert not list(tmp_path.iterdir())


def test_times_of_small_arrays_are_not_for_the_documentation():
    done = subprocess.run(COMMAND[:-1], cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--small needs --output" in done.stderr
