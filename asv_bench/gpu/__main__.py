"""All that a machine with a GPU can tell, in one command: ``python asv_bench/gpu``, which is `make gpu`.

The tests that need a GPU, the self-check, then times: each is of a step whose results have been compared with
those of NumPy. It stops at the first wrong number. It writes `gpu.json`, `gpu.md` and `gpu.svg`, and prints what a
GPU had to decide. With ``--small``, all of it runs on small arrays, once, only to see that it runs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]


def main() -> int:
    """Do all of it; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python asv_bench/gpu", description="Test and time all that needs a GPU."
    )
    parser.add_argument("--small", action="store_true", help="small arrays, once: no times that mean anything")
    parser.add_argument("--no-tests", action="store_true", help="begin with the times")
    parser.add_argument("--output", type=Path, default=HOUSE / "docs", help="folder of the files that are written")
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1), help="for the tests")
    given = parser.parse_args()
    if given.small:
        os.environ["RMSPROP_BENCH_SMOKE"] = "1"
    if given.small and given.output == HOUSE / "docs":
        parser.error("--small needs --output: its times are none for the documentation")
    if not given.no_tests:
        tests = ["-m", "pytest", "-q", "-x", "-m", "gpu", "-n", str(given.processes), "tests"]
        _run("tests", [*tests, "-p", "no:cacheprovider"])
        _run("self-check", ["-m", "rmsprop"])
    return _measure(given.output, given.small)


def _run(what: str, arguments: list[str]) -> None:
    """Run a program of this interpreter; end this one if it fails."""
    begin = time.perf_counter()
    status = subprocess.run([sys.executable, *arguments], cwd=HOUSE).returncode
    print(f"{what}: {'passed' if status == 0 else 'FAILED'} in {time.perf_counter() - begin:.0f} s", flush=True)
    if status:
        sys.exit(status)


def _measure(output: Path, is_small: bool) -> int:
    sys.path.insert(0, str(HOUSE / "asv_bench"))
    import gpu_report as report
    import measuring
    import tuning
    from scenarios import SCENARIOS

    speed, times = measuring.bandwidth(), {}
    try:
        for name, scenario in SCENARIOS.items():
            measuring.check(name, scenario)
            times[name] = measuring.race(scenario, speed)
            print(report.line(name, times[name]), flush=True)
        choices = tuning.recommendations(measuring.check)
    except measuring.WrongNumber as error:
        print(f"wrong number: {error}", file=sys.stderr)
        return 1
    for choice in choices:
        print(report.advice(choice))
    found = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "device": report.device(), "is_small": is_small}
    found |= {"bytes_per_second": speed, "seconds": times, "choices": choices}
    output.mkdir(parents=True, exist_ok=True)
    (output / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    (output / "gpu.md").write_text(report.page(found))
    report.draw(found, output / "gpu.svg")
    print(f"written: {output / 'gpu.json'}, gpu.md and gpu.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
