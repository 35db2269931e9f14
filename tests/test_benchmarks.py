"""The benchmarks measure what they say, and the report shows what asv has measured."""

import importlib
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HOUSE = Path(__file__).parents[1]
BENCHMARKS = HOUSE / "asv_bench"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)

SECONDS = {
    ("1 × 1,000", "limit"): 1e-6,
    ("1 × 1,000", "rmsprop"): 4.5e-6,
    ("1 × 1,000", "torch"): 2.1e-5,
    ("1 × 1,000,000", "limit"): 8e-5,
    ("1 × 1,000,000", "rmsprop"): 1e-4,
    ("1 × 1,000,000", "torch"): math.nan,
    ("ResNet-50", "limit"): 0.01,
    ("ResNet-50", "rmsprop"): 0.0105,
    ("ResNet-50", "torch"): 0.009,
}


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def results():
    """Return what asv writes, of a small round."""
    params = [[repr(name) for name in dict.fromkeys(names)] for names in zip(*SECONDS, strict=True)]
    return {
        "commit_hash": "0123456789abcdef",
        "params": {"cpu": "A Processor", "num_cpu": "2", "ram": str(24 * 2**30), "os": "Linux 6.1"},
        "results": {
            "comparison.Step.track_step": [list(SECONDS.values()), params, "version", 1_790_000_000_000, 1.0],
            "start.Start.timeraw_import": [[0.05], [], "version", 1_790_000_000_000, 1.0],
            "on_gpu.OnGpu.time_step": [None, [["'ResNet-50'"]], "version", 1_790_000_000_000, 1.0],
        },
    }


def test_the_shapes_are_those_of_resnet50(module):
    shapes = module("benchmarks.architectures").resnet50_shapes()
    assert len(shapes) == 161
    assert sum(math.prod(shape) for shape in shapes) == 25_557_032


@pytest.mark.parametrize(("sizes", "parts"), [([5], 2), ([1, 700, 3, 0, 40], 3), ([2, 2], 1)])
def test_the_limit_streams_each_element_once(module, sizes, parts):
    first, pieces = module("benchmarks.limit").cut(sizes, parts)
    touched = [np.zeros(size, int) for size in sizes]
    shares = []
    for part in range(parts):
        mine = pieces[first[part] : first[part + 1]]
        shares.append(sum(end - begin for _, begin, end in mine))
        for which, begin, end in mine:
            touched[which][begin:end] += 1
    assert all((t == 1).all() for t in touched)
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "centered": True}, {"momentum": 0.9, "weight_decay": 0.1}],
    ids=str,
)
def test_the_limit_changes_nothing_and_numpy_in_place_follows_rmsprop(module, settings):
    contenders, scenarios = module("benchmarks.contenders"), module("benchmarks.scenarios")
    scenario = scenarios.Scenario([(7, 5), (300,)], settings)
    ours = contenders.ours(scenario)
    before = [[a.copy() for a in arrays] for arrays in ours.streams]
    contenders.limit(scenario, ours.streams).step()
    for arrays, earlier in zip(ours.streams, before, strict=True):
        assert all(map(np.array_equal, arrays, earlier))
    peer = module("benchmarks.numpy_in_place").NumPyInPlace(
        scenario.shapes, contenders.LEARNING_RATE, contenders.RHO, contenders.EPSILON, **settings
    )
    peer.step(ours.streams[0])
    for mine, other in zip(ours.streams[-1], peer.variables, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5)


def test_finding_the_benchmarks_loads_neither_peers_nor_kernels():
    names = [path.stem for path in (BENCHMARKS / "benchmarks").glob("[!_]*.py")]
    slow = ["torch", "jax", "optax", "tensorflow", "cupy", "rmsprop_numba"]
    imports = ", ".join(f"benchmarks.{name}" for name in names)
    code = f"import sys, {imports}; print([m for m in {slow} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_the_table_shows_times_ratios_and_gaps(module, results):
    report = module("report")
    lines = report.comparison(report.by_scenario(report.values(results, report.STEP))).splitlines()
    assert lines[2:] == [
        "| 1 × 1,000 | 1.00 µs | **4.50 µs** | 21.0 µs | 4.50 | 4.67 |",
        "| 1 × 1,000,000 | 80.0 µs | **100 µs** |  | 1.25 |  |",
        "| ResNet-50 | 10.0 ms | 10.5 ms | **9.00 ms** | 1.05 | 0.86 |",
    ]


def test_the_report_writes_page_plot_and_readme_the_same_each_time(module, results, tmp_path):
    pytest.importorskip("matplotlib")
    report = module("report")
    (tmp_path / "docs").mkdir()
    begin, end = report.MARKERS
    (tmp_path / "README.md").write_text(f"above\n\n{begin}\nold\n{end}\n\nbelow\n")
    report.write(results, tmp_path, {"numpy": "2.0"})
    readme = (tmp_path / "README.md").read_text()
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    picture = (tmp_path / "docs" / "benchmarks.svg").read_bytes()
    assert readme.startswith(f"above\n\n{begin}\n\n![")
    assert readme.endswith(f"{end}\n\nbelow\n")
    assert "old" not in readme
    for shown in ("**4.50 µs**", "2026-09-21, commit 01234567, A Processor, 2 cores, 24 GiB, Linux", "numpy 2.0"):
        assert shown in readme
        assert shown in page
    assert "`start.Start.timeraw_import`" in page
    assert b"rmsprop" in picture
    report.write(results, tmp_path, {"numpy": "2.0"})
    assert readme == (tmp_path / "README.md").read_text()
    assert picture == (tmp_path / "docs" / "benchmarks.svg").read_bytes()


def test_the_readme_has_a_place_for_the_table(module):
    report = module("report")
    readme = (HOUSE / "README.md").read_text()
    assert [readme.count(marker) for marker in report.MARKERS] == [1, 1]
    assert report.between_markers(report.between_markers(readme, "x"), "x").count("\nx\n") == 1


def test_the_model_of_replicas_finds_the_machine_that_it_is_given(module):
    model = module("replica_model")
    machine = model.Machine(2e-6, bandwidth=5e9, start=3e-5, update=1e10, agreement=5e-5, copying=1e-10)

    def measured(ranks, size):
        crowd, total = max(1, ranks / 2), 4 * size
        update = crowd * total / machine.update
        added = crowd * model.seconds(machine, ranks, total)
        plain, sharded = added + update + crowd * model.agreements(machine, ranks), added + update / ranks
        return {
            "size": size,
            "sum": added,
            "update": update,
            "plain": plain,
            "sharded": sharded + crowd * machine.copying * total,
        }

    sizes = (1_000, 100_000, 4_000_000, 16_000_000)
    results = [{"ranks": ranks, "dense": [measured(ranks, n) for n in sizes]} for ranks in (1, 2, 4)]
    found = model.fitted(results, processors=2)
    assert found[:6] == pytest.approx(machine[:6], rel=1e-6)
    assert found.error < 1e-6
    assert model.memory(4, 1000, is_sharded=True)[0] == 250
    times = [model.step(machine, ranks, 64_000_000) for ranks in (2, 100, 10_000)]
    assert times == sorted(times)
