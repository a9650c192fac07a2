"""The versions in constraints.txt."""

from __future__ import annotations

from pathlib import Path


def pins() -> dict[str, str]:
    """Exact version of each distribution."""
    lines = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))
