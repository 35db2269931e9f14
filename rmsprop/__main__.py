"""A check of this installation: ``python -m rmsprop [--json]``.

Each kernel of each backend at hand is run against the oracle, and a step is timed against a copy of the same
memory. The exit status is 1 if a result is wrong.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from itertools import product
from typing import Any

import numpy as np

from rmsprop import IndexedSlices, RMSprop, dtypes
from rmsprop.arrays import to_numpy
from rmsprop.oracle import assert_step, hyper_of, snapshot

LIBRARIES = ("numpy", "cupy")
PACKAGES = ("rmsprop", "numpy", "numba", "array-api-compat", "autograd", "cupy", "ml-dtypes")
ELEMENTS = 8_000_000
"""Size of the arrays that are timed."""


def main(arguments: list[str] | None = None) -> int:
    """Check, print what was found, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rmsprop", description="Check this installation of rmsprop.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    as_json = parser.parse_args(arguments).json
    report = environment()
    report["libraries"] = {name: checked(xp) for name in LIBRARIES if (xp := available(name)) is not None}
    print(json.dumps(report, indent=2) if as_json else text(report))
    return int(any(library["wrong"] for library in report["libraries"].values()))


def environment() -> dict[str, Any]:
    """Return versions, backends and the number of processors."""
    found = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {name: number for name, number in found.items() if number is not None},
        "backends": {entry.name: entry.value for entry in entry_points(group="rmsprop.backends")},
    }


def available(name: str) -> Any:
    """Return an array library, or None if it is not installed or has no device."""
    try:
        xp = importlib.import_module(name)
    except ImportError:
        return None
    return xp if name != "cupy" or xp.cuda.is_available() else None


def checked(xp: Any) -> dict[str, Any]:
    """Run all kernels for one library, and time one."""
    wrong, count = [], 0
    for name, momentum, centered in product(_dtypes(), (0.0, 0.9), (False, True)):
        # That clipping is right for reals and complex numbers is seen in one dtype of each.
        for extra in ({}, {"clipvalue": 0.5}) if name in ("float32", "complex64") else ({},):
            settings = {"momentum": momentum, "centered": centered, **extra}
            for kind in (dense, sparse):
                count += 1
                try:
                    kind(xp, name, settings)
                except AssertionError as error:
                    wrong.append(f"{kind.__name__} {name} {settings}: {error}")
    step, copy = bandwidths(xp)
    return {"kernels": count, "wrong": wrong, "step_GB_per_s": step, "copy_GB_per_s": copy, "device": device(xp)}


def dense(xp: Any, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps by dense gradients with the oracle."""
    gradient = _draw(dtype, (257,), 1)
    _compare(xp, dtype, settings, (257,), xp.asarray(gradient), gradient, slice(None))


def sparse(xp: Any, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps by sparse gradients, of distinct rows, with the oracle."""
    values, rows = _draw(dtype, (3, 5), 1), np.array([6, 0, 3])
    gradient = IndexedSlices(xp.asarray(values), xp.asarray(rows))
    _compare(xp, dtype, settings, (7, 5), gradient, values, rows)


def _compare(
    xp: Any, dtype: str, settings: dict[str, Any], shape: tuple[int, ...], gradient: Any, host: Any, rows: Any
) -> None:
    variable, optimizer = xp.asarray(_draw(dtype, shape, 0)), RMSprop(0.05, **settings)
    optimizer.build([variable])
    for _ in range(2):
        before, hyper = snapshot(optimizer, variable), hyper_of(optimizer)
        optimizer.apply_gradients([(gradient, variable)])
        after = snapshot(optimizer, variable)
        old, new = (type(s)(*(None if x is None else x[rows] for x in s)) for s in (before, after))
        assert_step(old, new, host, hyper)


def bandwidths(xp: Any) -> tuple[float, float]:
    """Return GB/s of a float32 step without momentum, and of a copy of as much memory."""
    gradient, variable = xp.ones(ELEMENTS, xp.float32), xp.ones(ELEMENTS, xp.float32)
    source = xp.ones(5 * ELEMENTS // 2, xp.float32)
    target, optimizer = xp.empty_like(source), RMSprop(1e-6)

    def step() -> None:
        optimizer.apply_gradients([(gradient, variable)])

    def copy() -> None:
        target[...] = source

    total = 5 * gradient.nbytes / 1e9  # reads g, r and v; writes r and v
    return total / _seconds(xp, step), total / _seconds(xp, copy)


def _seconds(xp: Any, function: Callable[[], None]) -> float:
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        function()
        if xp.__name__ == "cupy":
            xp.cuda.Device().synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def device(xp: Any) -> str:
    """Return the name of what computes, and for a processor the number of threads."""
    if xp.__name__ == "cupy":
        name = xp.cuda.runtime.getDeviceProperties(0)["name"]
        return f"{xp.cuda.runtime.getDeviceCount()} x {name.decode() if isinstance(name, bytes) else name}"
    numba = importlib.import_module("numba")
    return f"{numba.get_num_threads()} threads ({numba.threading_layer()})"


def text(report: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"Python {report['python']} on {report['platform']}, {report['processors']} processors"]
    lines.append(", ".join(f"{name} {number}" for name, number in report["versions"].items()))
    lines.append("backends: " + ", ".join(f"{k} -> {v}" for k, v in report["backends"].items()))
    for name, found in report["libraries"].items():
        lines.append(f"{name} on {found['device']}: {found['kernels']} kernels, {len(found['wrong'])} wrong")
        lines += [f"  {each}" for each in found["wrong"]]
        lines.append(f"  a step moves {found['step_GB_per_s']:.1f} GB/s, a copy {found['copy_GB_per_s']:.1f} GB/s")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    for name in (package, f"{package}-cuda12x", f"{package}-cuda13x", f"{package}-rocm-7-0"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _dtypes() -> list[str]:
    """Return the dtypes that can be made here: NumPy knows bfloat16 by ml_dtypes only."""
    return [name for name in dtypes.COMPUTE if name != "bfloat16" or _version("ml-dtypes")]


def _draw(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(shape) + 1j * rng.standard_normal(shape) * dtypes.is_complex(dtype)
    numbers = numbers if dtypes.is_complex(dtype) else numbers.real
    kind = importlib.import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    return to_numpy(numbers.astype(kind))


if __name__ == "__main__":
    sys.exit(main())
