"""In-batch negatives over two processes are those of one process with the whole batch: ``joint_batches.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.joint_batches import features, train, weighted_loss
from tests.training.test_crashes import launched
from tests.training.toys import cpu_accelerator, metrics_lines, toy_config


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have trained."""
    folder = tmp_path_factory.mktemp("two")
    launched("tests.training.joint_batches", str(folder))
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    for name in ("plain", "step-aware"):
        train(cpu_accelerator(toy_config()), folder, name, step_aware=name == "step-aware")
    return folder


def test_gradients_of_unequal_batches_add_up_to_those_of_the_whole(two: Path) -> None:
    total, wanted = weighted_loss(slice(0, len(features()[0])), whole=True)
    parts = [json.loads((two / f"results-{rank}.json").read_text()) for rank in (0, 1)]
    assert sum(part["total"] for part in parts) == pytest.approx(total, rel=1e-12)
    for place, gradient in enumerate(wanted):
        found = sum(torch.tensor(part["gradients"][place], dtype=torch.float64) for part in parts)
        torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "step-aware"])
def test_two_processes_train_as_one_does(two: Path, one: Path, name: str) -> None:
    found, wanted = (
        [line for line in metrics_lines(root / name) if line.pop("kind") == "train"] for root in (two, one)
    )
    assert len(found) == 2
    for left, right in zip(found, wanted, strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-5)
    weights = [load_file(next((root / name).glob("**/checkpoint-*2/policy/model.safetensors"))) for root in (two, one)]
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[1].items():
        torch.testing.assert_close(weights[0][key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_a_process_that_fails_alone_ends_both(two: Path) -> None:
    failures = [json.loads((two / f"results-{rank}.json").read_text())["failure"] for rank in (0, 1)]
    assert all("the second process has no pairs" in failure for failure in failures)
