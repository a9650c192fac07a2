"""Killed (SIGKILL) at random moments and resumed, with real models; ``make kill`` does more of it: ``kill_runs.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.test_crashes import ROOT, child_environment


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
