"""Imports point one way, pipelines → trainer → ocr_model, and each package stays clear of what is not its business."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the modules under a folder must not import, at the top or inside a function.
FORBIDDEN = {
    "ocr_model": {"apache_beam", "pipelines", "tests", "trainer"},
    "trainer": {"apache_beam", "pipelines", "tests"},
    "trainer/synthesis": {"keras", "tensorflow"},
    "pipelines": {"tests"},
}


def imported_names(source: str, package: str) -> Iterator[str]:
    """The absolute dotted name of everything that a module imports; `package` is what relative imports start from.

    >>> list(imported_names("import os.path\\nfrom ..a import b", "x.y"))
    ['os.path', 'x.a']
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            yield ".".join([*parents, *filter(None, [node.module])])


def forbidden_imports(source: str, package: str, forbidden: set[str]) -> list[str]:
    """The imported names whose first part is forbidden."""
    return [name for name in imported_names(source, package) if name.partition(".")[0] in forbidden]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder):
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    found = {
        str(path.relative_to(ROOT)): names
        for path in modules
        if (
            names := forbidden_imports(
                path.read_text(encoding="utf-8"), ".".join(path.relative_to(ROOT).parent.parts), FORBIDDEN[folder]
            )
        )
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import apache_beam as beam",
        "from apache_beam.io import fileio",
        "def f():\n    import apache_beam",
        "if TYPE_CHECKING:\n    from apache_beam import Pipeline",
    ],
)
def test_a_forbidden_import_is_seen_wherever_it_stands(source):
    assert forbidden_imports(source, "ocr_model", {"apache_beam"})


@pytest.mark.parametrize(
    ("source", "package", "name"),
    [
        ("from . import loop", "trainer", "trainer"),
        ("from .loop import train", "trainer", "trainer.loop"),
        ("from ..loop import train", "trainer.synthesis", "trainer.loop"),
    ],
)
def test_a_relative_import_is_named_from_the_top(source, package, name):
    assert list(imported_names(source, package)) == [name]
