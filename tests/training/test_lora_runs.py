"""Runs with other adapters than the usual one: they resume exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedpo.models.adapter import LORA_FILE
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.small_runs import metrics, small
from tests.training.toys import cpu_accelerator


def run(folder: Path, out: Path, *, steps: int, resume: bool = False, **changes: Any) -> bytes:
    quick = {"metrics": [], "rewards": []}
    keys = small(folder, max_steps=steps, checkpoint_every=1, learning_rate=0.01, evaluation=quick, **changes)
    config = resolve_config("diffusion-dpo", keys)
    train(config, out, resume="latest" if resume else None, accelerator=cpu_accelerator(config), progress=False)
    return (out / "adapter" / LORA_FILE).read_bytes()


@pytest.mark.parametrize(
    "form", [{"lora_dropout": 0.5}, {"lora_dora": True, "lora_alpha": 2.0, "lora_targets": ["all"]}]
)
def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path: Path, form: dict[str, Any]) -> None:
    whole = run(tmp_path, tmp_path / "whole", steps=3, **form)
    run(tmp_path, tmp_path / "parts", steps=2, **form)
    assert run(tmp_path, tmp_path / "parts", steps=3, resume=True, **form) == whole
    losses = [[line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_dropout_changes_a_run(tmp_path: Path) -> None:
    assert run(tmp_path, tmp_path / "a", steps=2) != run(tmp_path, tmp_path / "b", steps=2, lora_dropout=0.5)
