from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seedpo.cli.main import app
from seedpo.training.sweeps import running
from seedpo.training.sweeps.hacking_grid import GRIDS
from tests.reports.hacking_benchmark.worlds import see_gains, write_runs


def test_sweeps_then_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method is a sweep; without a shard the results follow, and they name the command."""
    calls: list[Mapping[str, Any]] = []

    def run_sweep(sweep: Any, out: Path, **options: Any) -> running.Outcome:
        calls.append({"seeds": list(sweep.seeds), "out": out.name, "shard": options["shard"]})
        write_runs(out, {"truth": see_gains(0.5)}, grid=GRIDS["spo"].quick.untried, seeds=1)
        return running.Outcome(record=out / "sweep.json", folders=(), failures=())

    monkeypatch.setattr(running, "run_sweep", run_sweep)
    command = ["bench", "hacking", "--method", "spo", "--quick", "--set", "lora_rank=2", "--out"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "whole")])
    assert result.exit_code == 0, result.output
    assert "--method spo --quick --set lora_rank=2" in (tmp_path / "whole" / "hacking.md").read_text()
    result = CliRunner().invoke(app, [*command, str(tmp_path / "part"), "--shard", "1/2"])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "part" / "hacking.md").exists()
    assert calls == [{"seeds": [0], "out": "spo", "shard": shard} for shard in (None, "1/2")]
