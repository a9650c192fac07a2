"""docs/derivations.md: tests are named for every section, and the tests that are named exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "derivations.md"
ROW = re.compile(r"^\| (\d+) \| `(tests/[\w/]+\.py)` \| `([\w:]+)` \|$", flags=re.MULTILINE)


def names_in(path: str) -> set[str]:
    """Names of the tests of a file, those of classes as ``Class::test``."""
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
    return names


def test_every_section_has_tests_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    sections = re.findall(r"^## (\d+)\. ", page, flags=re.MULTILINE)
    assert sections == [str(number + 1) for number in range(len(sections))]
    rows = ROW.findall(page)
    assert {section for section, _, _ in rows} == set(sections)
    missing = [f"{path}::{name}" for _, path, name in rows if name not in names_in(path)]
    assert not missing
