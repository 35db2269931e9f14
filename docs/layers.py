"""The figure of the layers in CONTRIBUTING.md: ``python docs/layers.py`` draws it anew from pyproject.toml.

That the imports are as it shows is tested by import-linter, which reads the same layers.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"(?<=<!-- layers -->\n).*?(?=<!-- end of layers -->)", re.DOTALL)


def layers() -> list[list[str]]:
    """Return the names of packages and modules, layer by layer, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rows = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return [row.split(" | ") for row in rows]


def purpose(name: str) -> str:
    """Return what a package or module says of itself in its first line."""
    folder = ROOT if name.startswith("rmsprop.") else ROOT / "backends"
    path = folder.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.partition("\n")[0].replace("`", "")


def figure() -> str:
    """Return the layers as text: what stands higher imports only what stands lower."""
    lines = [
        "\n".join(f"    {name.removeprefix('rmsprop.'):20}{purpose(name)}".rstrip() for name in row)
        for row in layers()
    ]
    return "\n" + "\n          |\n".join(lines) + "\n\n"


def drawn(text: str) -> str:
    """Return the text of a page with the figure as it is now."""
    return PLACE.sub(lambda _: figure(), text)


if __name__ == "__main__":
    page = ROOT / "CONTRIBUTING.md"
    page.write_text(drawn(page.read_text()))
