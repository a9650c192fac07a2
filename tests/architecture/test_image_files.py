"""Image files are opened in one place, by a closed list of formats."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "seedpo"


def test_one_module_opens_image_files() -> None:
    opening = re.compile(r"\bImage\.open\(")
    modules = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if opening.search(path.read_text(encoding="utf-8"))
    }
    assert modules == {"data/images/rgb.py"}
