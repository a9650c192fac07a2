"""The files of single runs, and all runs of a study as one small file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 4
"""Significant digits of each figure in the file of all runs."""


def read_run_file(path: Path) -> dict[str, Any] | None:
    """A finished run; `None` if it is not finished."""
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return result


def write_all_runs(path: Path, head: Mapping[str, Any], runs: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes ``{**head, "runs": {...}}``, one run a line."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(run)}" for key, run in runs.items())
    start = json.dumps({**head, "runs": {}})[:-2]
    path.write_text(f"{start}\n{lines}\n}}}}\n", "utf-8")
    return path


def rounded(value: Any) -> Any:
    """A figure, a list or a mapping of figures, to :data:`DIGITS` significant digits; all else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value
