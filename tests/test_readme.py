"""The code in the README, and in the page on other frameworks, does what it shows."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
LINKED = (
    "conventions.md",
    "ptychography.png",
    "benchmarks.md",
    "benchmarks.svg",
    "replicas.md",
    "checkpoints.md",
    "recipes.md",
)
CONVENTIONS = README.parent / "docs" / "conventions.md"


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


BLOCKS = blocks_of(README)


@pytest.mark.parametrize("page", [README, CONVENTIONS], ids=lambda page: page.name)
def test_all_blocks_are_found(page):
    assert len(blocks_of(page)) == page.read_text().count("```python") > 3


def test_the_blocks_run_in_turn_and_print_what_they_show():
    assert failures([block for block in BLOCKS if "cupy" not in block and "import torch" not in block]) == 0


def test_the_blocks_on_pytorch_do_so_too():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    blocks = [">>> from rmsprop import RMSprop\n", *[block for block in BLOCKS if "import torch" in block]]
    assert failures(blocks) == 0


def test_the_blocks_on_other_frameworks_do_so_too():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    pytest.importorskip("optax", reason="in the extra 'interop'")
    assert failures(blocks_of(CONVENTIONS)) == 0


@pytest.mark.gpu
def test_the_blocks_for_a_gpu_do_so_too():
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    blocks = [">>> from rmsprop import RMSprop", *[block for block in BLOCKS if "cupy" in block]]
    assert failures(blocks) == 0


def failures(blocks):
    """Run blocks of code one after the other; return how many examples do not print what they show."""
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "README.md", str(README), 0)
    assert len(test.examples) > 5
    return doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(test).failed


def test_nothing_tells_to_install_a_name_that_is_not_ours_yet():
    """Until there is a release, anybody could register it."""
    root = README.parent
    texts = [p for ext in ("py", "md", "toml") for p in root.rglob(f"*.{ext}") if ".venv" not in p.parts]
    assert [p for p in texts if re.search(r"pip install [\"']?rms" + "prop", p.read_text())] == []


@pytest.mark.parametrize("path", [*map("docs/{}".format, LINKED), "CONTRIBUTING.md"])
def test_what_it_links_to_is_there(path):
    assert f"({path})" in README.read_text()
    assert (README.parent / path).stat().st_size > 0
