"""Two processes give what one gives, stop together and fail together: see ``two_processes.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.toys import ToyMethod, ToyPolicy, ToySource, metrics_lines, toy_config, toy_trainer, trace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have done their work."""
    folder = tmp_path_factory.mktemp("two-processes")
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, "-m", "tests.training.two_processes", str(folder)]
    log = folder / "output.txt"
    with log.open("w") as output:
        # In a session of its own, so that no worker is left behind.
        launched = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = launched.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(launched.pid, signal.SIGKILL)
    assert status == 0, log.read_text()[-4000:]
    return folder


@pytest.fixture
def results(root: Path) -> list[dict[str, Any]]:
    return [json.loads((root / f"results-{rank}.json").read_text()) for rank in (0, 1)]


def test_two_processes_give_the_losses_and_weights_of_one(
    root: Path, results: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = toy_config(max_steps=5, batch_size=8, gradient_accumulation_steps=2)
    policy = ToyPolicy(dropout=0.0)
    toy_trainer(tmp_path, config, policy=policy, method=ToyMethod(noise=0.0), source=ToySource(8)).train()
    one = metrics_lines(tmp_path, "kind")
    two = [line for line in metrics_lines(root / "plain") if line.pop("kind") == "train"]
    assert len(one) == len(two) == 5
    for left, right in zip(one, two, strict=True):
        assert left == pytest.approx(right, rel=1e-5, abs=1e-6)
    assert two[-1]["pairs_seen"] == 5 * 2 * 2 * 4
    for result in results:
        torch.testing.assert_close(torch.tensor(result["plain"]["weights"]), policy.weights(), rtol=1e-5, atol=1e-6)
    assert results[0]["plain"] == results[1]["plain"]


def test_each_process_draws_its_own_numbers_and_resumes_them(root: Path, results: list[dict[str, Any]]) -> None:
    states = [(root / "whole/checkpoints/checkpoint-000005" / f"rank-{rank}.json").read_text() for rank in (0, 1)]
    assert json.loads(states[0])["random"]["python"] != json.loads(states[1])["random"]["python"]
    assert results[0]["whole"]["weights"] == results[1]["whole"]["weights"] == results[0]["stopped"]["weights"]
    found, expected = trace(root / "stopped"), trace(root / "whole")
    assert found["metrics"] == expected["metrics"]
    last = {name: value for name, value in expected.items() if "checkpoint-000005" in name}
    assert len(last) == 8
    assert {name: found[name] for name in last} == last


def test_a_signal_to_one_process_stops_both(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["stop"].startswith("TrainingInterrupted: stopped after step 3 of 5; the last checkpoint is ")


def test_errors_of_one_process_reach_both(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["diverged"].startswith(
            "TrainingDiverged: step 1: the loss is not finite for process 1, micro-batch 0, rows [2]; "
            "process 1, micro-batch 1, rows [2] (gradient norm "
        )
        assert result["evaluator"] == "SeedpoError: the evaluator has no prompts"
        assert result["second"] == "SeedpoError: the second process has no disk"
    assert results[0]["fault"] == "ZeroDivisionError: division by zero"
    assert results[1]["fault"].startswith("RuntimeError: the first process failed: ZeroDivisionError")
