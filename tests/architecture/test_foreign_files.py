"""What anyone may have written is read in one place of each kind, within bounds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "seedpo"

PLACES = {
    "an image file": ({"Image.open"}, {"data/images/rgb.py"}),
    "JSON": (
        {"json.load", "json.loads", "json.JSONDecoder"},
        {"documents.py", "data/text/objects.py", "study/web/bodies.py"},
    ),
    "a table, or writes one that no spreadsheet takes for formulas": (
        {"csv.reader", "csv.DictReader", "csv.writer", "csv.DictWriter"},
        {"data/text/delimited.py"},
    ),
    "what a terminal shows": ({"typer.echo"}, {"cli/shared.py"}),
    "YAML": (
        {f"yaml.{name}" for name in ("load", "load_all", "safe_load", "safe_load_all", "full_load", "unsafe_load")}
        | {
            f"yaml.{name}" for name in ("compose", "parse", "scan", "SafeLoader", "BaseLoader", "Loader", "CSafeLoader")
        },
        {"documents.py"},
    ),
}
"""Names that read what somebody else wrote, or write what others open, and the modules that may use them."""


def names(text: str) -> Iterator[str]:
    """Dotted names that a module uses."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


@pytest.mark.parametrize("kind", PLACES)
def test_one_place_reads(kind: str) -> None:
    readers, allowed = PLACES[kind]
    modules = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if not readers.isdisjoint(names(path.read_text(encoding="utf-8")))
    }
    assert modules == allowed
