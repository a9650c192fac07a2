"""Killed (SIGKILL) at any place and resumed: see ``crash_runs.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def crash_and_resume(root: Path, first: int, stride: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.training.crash_runs", str(root), str(first), str(stride)]
    subprocess.run(command, cwd=ROOT, check=True, env=child_environment(), capture_output=True)
    outcomes: list[dict[str, Any]] = json.loads((root / "outcomes.json").read_text())
    return outcomes


def child_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}


LAUNCH = (
    "import sys; from seedpo.cli.launch import launch; "
    "command = [sys.executable, '-m', sys.argv[1]]; "
    "raise SystemExit(launch(sys.argv[3:], processes=int(sys.argv[2]), command=command))"
)


def launched(module: str, *arguments: str, processes: int = 2, timeout: float = 290) -> None:
    """Some processes run a module of the tests; nothing may hang or fail."""
    command = [sys.executable, "-c", LAUNCH, module, str(processes), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


def check(outcomes: list[dict[str, Any]]) -> None:
    assert all(outcome["killed"] == -9 for outcome in outcomes)
    nothing = [outcome["place"] for outcome in outcomes if outcome["resumed"] == 3]
    others = [outcome for outcome in outcomes if outcome["resumed"] != 3]
    assert [outcome for outcome in others if not outcome["same"]] == []
    # Only before the first checkpoint is there nothing to resume; from then on there always is.
    assert max(nothing, default=0) < min(outcome["place"] for outcome in others)
    assert len(others) > len(nothing)


def test_killed_at_some_places(tmp_path: Path) -> None:
    outcomes = crash_and_resume(tmp_path, first=6, stride=19)
    assert len(outcomes) >= 5
    check(outcomes)


@pytest.mark.slow
def test_killed_at_every_place(tmp_path: Path) -> None:
    outcomes = crash_and_resume(tmp_path, first=1, stride=1)
    kinds = {outcome["name"] for outcome in outcomes if outcome["resumed"] == 0}
    assert kinds == {"replace", "fsync", "unlink", "rmdir", "batch", "evaluation", "metrics"}
    check(outcomes)
