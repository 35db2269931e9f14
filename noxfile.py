"""Tests in fresh environments: each Python, the oldest dependencies, no extras (``nox``, or ``nox -s lowest``).

Sessions of interpreters that are not installed are skipped.
"""

import tomllib
from pathlib import Path

import nox

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "venv"

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
STEP = (
    "import numpy as np, rmsprop; w = np.ones(300_000, np.float32); "
    "opt = rmsprop.RMSprop(0.1, momentum=0.9); opt.apply_gradients([(w, w)]); "
    "print(w[0]); exit(not (w[0] < 1.0 and opt.iterations == 1))"
)
"""A step in several threads, for environments without pytest."""


@nox.session(python=PYTHONS)
def tests(session):
    """Run all tests."""
    session.install("--only-binary", "numpy,numba,llvmlite", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.11")
def lowest(session):
    """Run all tests with the oldest versions that pyproject.toml allows."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    oldest = [requirement.replace(">=", "==") for requirement in project["dependencies"]]
    session.install("--only-binary", ":all:", *oldest)
    session.install(".[test]", *oldest)
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.12")
def adapters(session):
    """Run the adapters, and the recipes of docs/recipes.md, with the packages that they are for."""
    session.install("--only-binary", "numpy,numba,llvmlite", ".[test,adapters]")
    session.run("pytest", "-p", "no:odl_plugins", "tests/adapters", *session.posargs)  # which pytest 9 can't load


@nox.session(python=PYTHONS)
def no_extras(session):
    """Import and take a step without any optional dependency, in each mode of the interpreter."""
    session.install("--only-binary", "numpy,numba,llvmlite", ".")
    for options in ([], ["-O"], ["-OO"], ["-W", "error"], ["-X", "dev"]):
        session.run("python", *options, "-c", STEP)
