"""Show that the tests catch seeded faults: ``python tests/mutants cpu`` or ``gpu``, and words to pick some.

The faults of the backend for CuPy need a CUDA device or a simulator of one. With two devices, those that only
these show are tried, too. The exit status is 1 if a fault goes unnoticed, or a test fails without any.
"""

import argparse
import os
import sys

import checks
import conventions
import files
import gpu
import kernels
import replicas
import shared
import tensors
from machinery import tried

CPU = [*kernels.MUTANTS, *shared.MUTANTS, *files.MUTANTS, *conventions.MUTANTS, *replicas.MUTANTS, *checks.MUTANTS]
CPU += tensors.MUTANTS


def main() -> int:
    """Try faults."""
    parser = argparse.ArgumentParser(prog="python tests/mutants", description="Show that tests catch faults.")
    parser.add_argument("kind", choices=["cpu", "gpu"])
    parser.add_argument("words", nargs="*", help="only faults that have one of these in name or file")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    given = parser.parse_intermixed_args()
    mutants = gpu.present() if given.kind == "gpu" else CPU
    if given.words:
        mutants = [m for m in mutants if any(word in f"{m.name} {m.file}" for word in given.words)]
    if given.kind == "gpu":
        return int(tried(mutants, "gpu", given.jobs) > 0)
    return int(tried(mutants, "not gpu", given.jobs, RMSPROP_CACHE="1") > 0)


if __name__ == "__main__":
    sys.exit(main())
