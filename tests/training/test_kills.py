"""Killed (SIGKILL) at random moments and resumed, with real models; ``make kill`` does more of it: ``kill_runs.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_crashes import ROOT, child_environment


@pytest.mark.slow
def test_the_command_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    """All 57 places hold; here every seventh is tried, the first before anything of the folder is there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.early_kills", str(tmp_path), "7"],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())
    assert len(outcomes) > 5
    assert not outcomes[0]["left"]
    assert any(outcome["left"] and "run/config.yaml" not in outcome["left"] for outcome in outcomes)
    for outcome in outcomes:
        assert (outcome["killed"], outcome["again"], outcome["same"]) == (-9, 0, True), outcome


@pytest.mark.slow
def test_a_few_kills(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.kill_runs", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--moments", "4", "--seed", "1"],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert len(json.loads((tmp_path / "out" / "kills.json").read_text())) == 4
    assert "| 4 |" in (tmp_path / "out" / "kills.md").read_text()
