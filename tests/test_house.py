"""The house: what CONTRIBUTING.md, the layers and the rows of settings say is so."""

import ast
import importlib.util
import inspect
from pathlib import Path

import pytest

from rmsprop import RMSprop
from rmsprop.formula import Hyperparameters
from rmsprop.settings.rows import ROWS

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("rmsprop/**/*.py"), *ROOT.glob("backends/**/*.py")])
LONGEST = 350


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("layers", ROOT / "docs" / "layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figure_of_the_layers_is_that_of_the_contract(script):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert script.figure() in page
    assert script.drawn(page) == page


def test_each_package_and_module_has_a_layer(script):
    named = {name for row in script.layers() for name in row}
    there = {f"rmsprop.{path.stem}" for path in (ROOT / "rmsprop").iterdir() if is_room(path)}
    assert named == there | {path.name for path in (ROOT / "backends").iterdir() if is_room(path)}


def is_room(path):
    return path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_go(path):
    text = path.read_text()
    described = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Expr) and is_text(n.value)]
    lines = len(text.splitlines()) - sum(n.end_lineno - n.lineno + 1 for n in described)
    assert lines <= LONGEST


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_first_what_it_is_and_not_what_is_in_question(path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition(" ")[0]
    assert first not in ("", "How", "What", "When", "Where", "Whether", "Which", "Who", "Why")


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_each_setting_is_an_argument_with_the_default_of_its_row_and_an_attribute_with_words():
    arguments = inspect.signature(RMSprop).parameters
    assert {*arguments} == {*ROWS, "lr"}
    for name, row in ROWS.items():
        assert arguments[name].default == row.default, name
        assert getattr(RMSprop, name).__doc__, name


def test_all_hyperparameters_are_settings_but_for_the_number_of_the_step():
    assert {*Hyperparameters._fields} - {*ROWS} == {"step"}
