"""A check of this installation: ``python -m rmsprop [--json]``.

Each kernel of each backend at hand is run against the oracle, and a step is timed against a copy of the same
memory. The exit status is 1 if a result is wrong. How far it has come is told on stderr: most of the time goes
into compiling all the kernels.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from itertools import product
from typing import Any

import numpy as np

from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop.arrays import dtypes
from rmsprop.arrays.libraries import Namespace, to_numpy
from rmsprop.backends import installed
from rmsprop.testing.oracle import HALVES, assert_step, hyper_of, snapshot

GENERIC = ("array_api_strict", "jax.numpy")
"""Libraries of which the first that is installed serves to check the backend for all others."""

PACKAGES = ("rmsprop", "numpy", "numba", "array-api-compat", "autograd", "cupy", "ml-dtypes")
ELEMENTS = 8_000_000
"""Size of the arrays that are timed."""


def main(arguments: list[str] | None = None) -> int:
    """Check, print what was found, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rmsprop", description="Check this installation of rmsprop.")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    as_json = parser.parse_args(arguments).json
    report = environment()
    report["libraries"] = {xp.__name__: checked(xp) for xp in libraries()}
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
        "backends": {name: entry.value for name, entry in installed().items()},
    }


def libraries() -> list[Any]:
    """Return an array library for each backend, as far as it is installed and has a device."""
    generic = next((xp for name in GENERIC if (xp := _imported(name)) is not None), None)
    cupy = _imported("cupy")
    has_device = cupy is not None and cupy.cuda.is_available()
    others = [_imported("torch"), generic]
    return [np, *[cupy] * has_device, *[xp for xp in others if xp is not None]]


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def checked(xp: Namespace) -> dict[str, Any]:
    """Run all kernels for one library, and time one of a backend that is made for it."""
    wrong, planned = [], list(checks(xp))
    for done, (kind, name, settings) in enumerate(planned):
        tell_progress(xp.__name__, done, len(planned))
        try:
            kind(xp, name, settings)
        except Exception as error:  # whatever a driver or a compiler may say
            reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            wrong.append(f"{kind.__name__} {name} {settings}: {reason}")
    tell_progress(xp.__name__, len(planned), len(planned))
    found = {"device": device(xp), "kernels": len(planned), "wrong": wrong}
    if xp.__name__ in ("numpy", "cupy"):
        found["step_GB_per_s"], found["copy_GB_per_s"] = bandwidths(xp)
    return found


def checks(xp: Namespace) -> Iterator[tuple[Callable[..., None], str, dict[str, Any]]]:
    """Yield each check of a library with its dtype and settings."""
    for name, momentum, centered in product(_dtypes(xp), (0.0, 0.9), (False, True)):
        is_example = name in ("float32", "complex64")
        if centered and not momentum and not is_example:
            continue  # its terms are also those of the other variants; half a minute is for all
        settings = {"momentum": momentum, "centered": centered}
        # That clipping is right for reals and complex numbers is seen in one dtype of each, and by one formula.
        is_plain = not momentum and not centered
        clipping = (clipped_values, clipped) if is_example and is_plain else ()
        rows = (sparse,) if is_example or not centered else ()
        for kind in (dense, listed, *rows, *clipping):
            yield kind, name, settings


def tell_progress(library: str, done: int, count: int) -> None:
    """Tell how far the check of a library has come: a terminal each time, a file once."""
    if sys.stderr.isatty():
        end = "\n" if done == count else ""
        print(f"\r{library}: {done} of {count} kernels checked", end=end, file=sys.stderr, flush=True)
    elif done == 0:
        print(f"{library}: {count} kernels are compiled and checked", file=sys.stderr, flush=True)


def dense(xp: Namespace, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps by dense gradients with the oracle."""
    gradient = _draw(dtype, (257,), 1)
    _compare(RMSprop(0.05, **settings), [xp.asarray(_draw(dtype, (257,), 0))], [xp.asarray(gradient)], gradient)


def listed(xp: Namespace, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps of a list, whose arrays are all alike, with the oracle."""
    gradient = _draw(dtype, (257,), 1)
    variables = [xp.asarray(_draw(dtype, (257,), 0)) for _ in range(5)]
    _compare(RMSprop(0.05, **settings), variables, [xp.asarray(gradient) for _ in variables], gradient)


def clipped_values(xp: Namespace, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps by gradients that are clipped by value with the oracle."""
    dense(xp, dtype, {**settings, "clipvalue": 0.5})


def clipped(xp: Namespace, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps by gradients of norm 0.5, clipped to the norm 0.25, with the oracle."""
    gradient = np.zeros_like(_draw(dtype, (257,), 0))
    gradient[[3, 200]] = 0.3, 0.4
    short = gradient / 2  # exactly
    optimizer = RMSprop(0.05, clipnorm=float(np.linalg.norm(gradient.astype(complex))) / 2, **settings)
    _compare(optimizer, [xp.asarray(_draw(dtype, (257,), 0))], [xp.asarray(gradient)], short)


def sparse(xp: Namespace, dtype: str, settings: dict[str, Any]) -> None:
    """Compare steps by sparse gradients, one row of which is listed twice, with the oracle."""
    total, rows = _draw(dtype, (3, 5), 1), np.array([6, 0, 3])
    values = np.concatenate([total[:2], total[2:] / 2, total[2:] / 2])
    gradient = IndexedSlices(xp.asarray(values), xp.asarray(np.array([6, 0, 3, 3])))
    _compare(RMSprop(0.05, **settings), [xp.asarray(_draw(dtype, (7, 5), 0))], [gradient], total, rows)


def _compare(optimizer: RMSprop, arrays: list[Any], gradients: list[Any], host: Any, rows: Any = ...) -> None:
    """Take two steps by gradients that all are `host`, and compare `rows` of each variable with the oracle."""
    variables = [Variable.around(array) for array in arrays]
    optimizer.build(variables)
    for _ in range(2):
        before, hyper = [snapshot(optimizer, v) for v in variables], hyper_of(optimizer)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for earlier, variable in zip(before, variables, strict=True):
            later = snapshot(optimizer, variable)
            old, new = (type(s)(*(None if x is None else x[rows] for x in s)) for s in (earlier, later))
            assert_step(old, new, host, hyper)


def bandwidths(xp: Namespace) -> tuple[float, float]:
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


def _seconds(xp: Namespace, function: Callable[[], None]) -> float:
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        function()
        if xp.__name__ == "cupy":
            xp.cuda.Device().synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def device(xp: Namespace) -> str:
    """Return the name of what computes, and for a processor the number of threads."""
    if xp.__name__ == "cupy":
        name = xp.cuda.runtime.getDeviceProperties(0)["name"]
        return f"{xp.cuda.runtime.getDeviceCount()} x {name.decode() if isinstance(name, bytes) else name}"
    if xp is not np:
        return "the device of its arrays by default"
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
        if "step_GB_per_s" in found:
            step, copy = found["step_GB_per_s"], found["copy_GB_per_s"]
            lines.append(f"  a step moves {step:.1f} GB/s, a copy {copy:.1f} GB/s")
    return "\n".join(lines)


def _version(package: str) -> str | None:
    if package == "cupy":  # the name of its distribution tells the platform, too
        package = next(iter(packages_distributions().get("cupy", ["cupy"])))
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _dtypes(xp: Namespace) -> list[str]:
    """Return the dtypes that can be made: NumPy knows bfloat16 by ml_dtypes only, the standard has no halves."""
    if xp.__name__ not in ("numpy", "cupy"):
        return [name for name in dtypes.COMPUTE if name not in HALVES]
    return [name for name in dtypes.COMPUTE if name != "bfloat16" or _version("ml-dtypes")]


def _draw(dtype: str, shape: tuple[int, ...], seed: int) -> Any:
    rng = np.random.default_rng(seed)
    numbers = rng.standard_normal(shape) + 1j * rng.standard_normal(shape) * dtypes.is_complex(dtype)
    numbers = numbers if dtypes.is_complex(dtype) else numbers.real
    kind = importlib.import_module("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    return to_numpy(numbers.astype(kind))


if __name__ == "__main__":
    sys.exit(main())
