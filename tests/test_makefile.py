"""``make`` sets up what its commands need, also after an interruption, and says which Python it needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

PYTHON = """#!/bin/sh
# Stands for Python {version}. Its environments have a Python that is the same, and a pip that only takes notes.
echo "$@" >> {log}
case "$2" in
    venv)
        for folder in "$@"; do :; done
        case "$*" in *--clear*) rm -rf "$folder";; esac
        mkdir -p "$folder/bin" && touch "$folder/pyvenv.cfg"
        {venv}
        cp "$0" "$folder/bin/python";;
    pip)
        {pip};;
    *)
        test "$1" = -c || exit 0
        exec {python} -c "
import sys
sys.version_info = {version}
sys.modules['pip'] = sys
exec(sys.argv[1])" "$2";;
esac
"""


@pytest.fixture
def project(tmp_path):
    """Return a folder with what `make demo` needs, where a stand-in for Python takes the place of packages."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def python(project, name="python3", version=(3, 12, 1), venv=":", pip=":"):
    """Put a stand-in for an interpreter on the path."""
    path = project / "path" / name
    path.parent.mkdir(exist_ok=True)
    log = project / "log"
    path.write_text(PYTHON.format(version=version, log=log, venv=venv, pip=pip, python=sys.executable))
    path.chmod(0o755)


def make(project, *arguments, target="demo"):
    """Run make; return its status, what it says, and what it has asked interpreters to do."""
    log = project / "log"
    log.write_text("")
    env = {"PATH": f"{project / 'path'}:/usr/bin:/bin"}
    command = ["make", target, *arguments]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr, log.read_text()


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 10, 4), (2, 7, 18)])
@pytest.mark.parametrize("target", ["demo", "test"])
def test_an_old_python_is_refused_at_once_with_the_version_that_is_needed(project, version, target):
    python(project, version=version)
    status, told, asked = make(project, target=target)
    assert status != 0
    assert f"needs Python {NEEDED} or later" in told
    assert f"make {target} PYTHON=python{NEEDED}" in told
    assert "venv" not in asked
    assert "pip install" not in asked
    assert not (project / ".venv").exists()


def test_after_the_refusal_another_python_will_do(project):
    python(project, version=(3, 9, 18))
    python(project, name="python3.12")
    assert make(project)[0] != 0
    assert make(project, "PYTHON=python3.12")[0] == 0


def test_the_demo_runs_after_one_set_up_and_again_without_any(project):
    python(project)
    status, _, asked = make(project)
    assert (status, asked.count("-m venv"), asked.count("pip install")) == (0, 1, 1)
    assert "examples/ptychography.py" in asked
    status, _, asked = make(project)
    assert (status, asked) == (0, "examples/ptychography.py\n")


@pytest.mark.parametrize("broken", [{"venv": "exit 1"}, {"pip": "exit 1"}, {"venv": "exit 130"}], ids=str)
def test_a_set_up_that_was_interrupted_begins_anew(project, broken):
    python(project, **broken)
    assert make(project)[0] != 0
    (project / ".venv").mkdir(exist_ok=True)
    (project / ".venv" / "half").touch()
    python(project)
    status, _, asked = make(project)
    assert (status, asked.count("-m venv"), asked.count("pip install")) == (0, 1, 1)
    assert not (project / ".venv" / "half").exists()
    assert make(project)[2] == "examples/ptychography.py\n"


def test_a_set_up_that_was_interrupted_goes_on_with_another_python(project):
    python(project, pip="exit 1")
    assert make(project)[0] != 0
    python(project, version=(3, 9, 18))
    python(project, name="python3.13", version=(3, 13, 0))
    status, _, _ = make(project, "PYTHON=python3.13")
    assert status == 0
    assert "(3, 13, 0)" in (project / ".venv" / "bin" / "python").read_text()


def test_an_environment_of_an_old_python_is_made_anew(project):
    python(project)
    assert make(project)[0] == 0
    (project / ".venv" / "demo.done").unlink()
    old = (project / ".venv" / "bin" / "python").read_text().replace("(3, 12, 1)", "(3, 9, 18)")
    (project / ".venv" / "bin" / "python").write_text(old)
    status, _, asked = make(project)
    assert (status, asked.count("venv --clear .venv")) == (0, 1)


def test_what_is_installed_by_hand_into_a_sound_environment_stays(project):
    python(project)
    subprocess.run(["path/python3", "-m", "venv", ".venv"], cwd=project, check=True)
    (project / ".venv" / "torch").touch()
    assert make(project)[0] == 0
    assert (project / ".venv" / "torch").exists()


def test_a_folder_that_is_no_environment_is_not_cleared(project):
    python(project)
    (project / "precious").mkdir()
    (project / "precious" / "thesis").touch()
    assert make(project, "VENV=precious")[0] == 0
    assert (project / "precious" / "thesis").exists()
