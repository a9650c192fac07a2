"""What patterns of paths stand for."""

from __future__ import annotations

from glob import glob
from pathlib import Path

import pytest

from seedpo.data.files.patterns import MOST_NUMBERS, matches, numbered
from seedpo.errors import DataError

PATTERNS = (
    "*",
    "*.png",
    "**",
    "**/*.png",
    "a/**/*.png",
    "**/a/*",
    "a/[1b].png",
    "a/?.png",
    "[!a]*",
    ".*",
    "*/.h.png",
    "linked/*.png",
    "**/**/1.png",
    "no/*",
    "a/1.png/*",
    "*/1.png",
    "a/../*.png",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("1.png", "2.png", ".h.png", "a/1.png", "a/10.png", "a/.h.png", "a/b/3.png", ".d/4.png", "a b/[x].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to("a")
    return tmp_path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_stands_for_what_a_shell_finds(tree, monkeypatch, pattern):
    monkeypatch.chdir(tree)
    for text in (pattern, f"{tree}/{pattern}"):
        assert matches(text) == sorted({Path(path) for path in glob(text, recursive=True)})  # noqa: PTH207


def test_links_that_lead_back_end(tree):
    for name in ("self", "again", "a/up", "a/b/top"):
        (tree / name).symlink_to(tree)
    paths = matches(f"{tree}/**/*.png")
    assert {path.relative_to(tree).as_posix() for path in paths} >= {"1.png", "a/1.png", "a/b/3.png", "linked/1.png"}
    assert len(paths) < 100


def test_numbers_in_braces():
    assert numbered("a{08..10}b{1..2}") == ["a08b1", "a08b2", "a09b1", "a09b2", "a10b1", "a10b2"]
    assert numbered("a{2..1}") == []
    assert numbered("a{x..y}") == ["a{x..y}"]
    with pytest.raises(DataError):
        numbered(f"a{{0..{MOST_NUMBERS}}}")
    with pytest.raises(DataError):
        numbered("a{0..999}{0..999}")
    assert numbered("a{0..9999999999}") == ["a{0..9999999999}"]
