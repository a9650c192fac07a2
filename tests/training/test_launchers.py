"""``seedpo train`` under accelerate's launcher and its own, two CPU processes: the same entry, hence the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small_runs import as_options, metrics, small
from tests.training.test_accelerator import FILES

ROOT = Path(__file__).parents[2]
ACCELERATE = ["-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--main_process_port", "0"]

pytestmark = pytest.mark.slow


def train(folder: Path, name: str, launcher: list[str], *more: str) -> Any:
    """The metrics of a run, started by a launcher."""
    options = as_options(small(folder, checkpoint_every=0))
    command = [sys.executable, *launcher, "-m", "seedpo", "train", "diffusion-dpo", "--out", str(folder / name)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--quiet", *options, *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = metrics(folder / name)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert lines[-1]["step"] == 2
    assert {path.name for path in folder.glob(f"{name}/checkpoints/*/rank-*.json")} == {"rank-0.json", "rank-1.json"}
    return lines


def test_data_parallel(tmp_path: Path) -> None:
    expected = train(tmp_path, "own", [], "--processes", "2")
    assert train(tmp_path, "accelerate", [*ACCELERATE, "--config_file", str(FILES / "ddp.yaml")]) == expected


def test_shards(tmp_path: Path) -> None:
    expected = train(tmp_path, "own", [], "--processes", "2", "--shard")
    assert train(tmp_path, "accelerate", [*ACCELERATE, "--config_file", str(FILES / "fsdp2.yaml")]) == expected
