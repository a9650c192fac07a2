"""docs/derivations.md: every section names the tests that check it, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "derivations.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")


def sections() -> dict[str, str]:
    """Text of every numbered section, by its heading."""
    parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: part for part in parts}


def names_in(path: str) -> set[str]:
    """Names of the tests of a file, those of classes as ``Class::test``."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
    return found


def test_sections_are_numbered_in_order() -> None:
    assert [heading.split(".")[0] for heading in sections()] == [str(n + 1) for n in range(len(sections()))]


@pytest.mark.parametrize("heading", sections())
def test_a_section_names_its_tests(heading: str) -> None:
    named = NAMED.findall(sections()[heading])
    assert named, f"{heading}: no test is named"
    for path, name in named:
        assert name in names_in(path), f"{path} has no test {name}"
