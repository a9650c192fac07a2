"""A finished run folder of a tiny published model, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from seedpo.evaluation.sheets import save_sheet
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.run_folders import RunFolder
from seedpo.settings import build_config
from seedpo.training.run_folder import create_run_folder
from seedpo.training.settings import RunConfig
from tests.models.published import pipeline_of
from tests.models.tiny import move

PROMPTS = ("a red ring", "a blue star")


def base_folder(path: Path, kind: str) -> Path:
    pipeline_of(kind).save_pretrained(path)
    return path


def finished_run(path: Path, **changes: Any) -> PipelinePolicy:
    """Writes the folder and returns the policy whose weights are in it."""
    named = {"data": "scenes-pairs", "prompts": "scenes-training", "reward": "scenes-scorer"}
    keys = {"method": "spo", "max_steps": 40, "beta": 10.0, "lora_rank": 3}
    config = build_config(RunConfig, named, keys, changes)
    run = write_folder(path, config)
    policy = move(build_policy(config), scale=0.1 if config.adapter == "lora" else 0.02)
    (run.path / config.weights_folder).mkdir()
    policy.save(run.path / config.weights_folder)
    return policy


def write_folder(path: Path, config: RunConfig) -> RunFolder:
    run = create_run_folder(path, config)
    run.environment.write_text(json.dumps({"packages": {"torch": "2.13.0", "seedpo": "0.1.0", "peft": None}}))
    lines: list[dict[str, Any]] = [
        {"step": 0, "kind": "evaluation", **figure("reward/scenes-scorer", 1.0), **figure("pairwise_diversity", 0.5)},
        {"step": 40, "kind": "train", "loss": 0.6, "pairs_seen": 640},
        {"step": 40, "kind": "evaluation", **figure("reward/scenes-scorer", 2.0), **figure("pairwise_diversity", 0.25)},
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step, shade in ((0, 0.0), (20, 0.5), (40, 1.0)):
        save_sheet(torch.full((len(PROMPTS), 3, 3, 16, 16), shade), run.samples / f"step-{step:06d}.png")
    (run.samples / "index.json").write_text(json.dumps({"tile": 16, "columns": 3, "prompts": PROMPTS}))
    run.finished.write_text(json.dumps({"step": 40, "seconds": 1.0}))
    return run


def figure(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}/low": value - 0.125, f"{name}/high": value + 0.125}
