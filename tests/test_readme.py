"""The code in the README does what it shows."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_all_blocks_are_found():
    assert len(BLOCKS) == README.read_text().count("```python") > 5


def test_the_blocks_run_in_turn_and_print_what_they_show():
    test = doctest.DocTestParser().get_doctest("\n".join(BLOCKS), {}, "README.md", str(README), 0)
    assert len(test.examples) > 30
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.failed == 0


@pytest.mark.parametrize("path", ["docs/ptychography.png", "CONTRIBUTING.md"])
def test_what_it_links_to_is_there(path):
    assert f"({path})" in README.read_text()
    assert (README.parent / path).stat().st_size > 0
