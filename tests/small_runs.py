"""Settings that make a run of the embedded model take about a second, and what two runs must have in common."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from seedpo.scenes.pairs import preference_table
from seedpo.settings import merge

SMALL: dict[str, Any] = {
    "model": "scenes",
    "reward": "scenes-scorer",
    "lora_rank": 4,
    "max_steps": 2,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "evaluate_every": 0,
    "sampling": {"num_inference_steps": 4, "guidance_scale": 2.0},
    "trajectories": {"prompts_per_rollout": 2, "images_per_prompt": 2, "min_gap": 0.0, "steps_per_pair": None},
    "steps": {
        "prompts_per_rollout": 2,
        "candidates": 2,
        "plain_steps": 1,
        "min_gap": 0.0,
        "min_gap_noisiest": None,
        "updates_per_rollout": 1,
    },
    "groups": {"prompts_per_rollout": 2, "images_per_prompt": 2, "min_gap": 0.0},
    "evaluation": {
        "prompts": "scenes-evaluation",
        "num_prompts": 2,
        "images_per_prompt": 2,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "rewards": ["scenes-scorer"],
        "metrics": ["truth", "attribute_accuracy", "pairwise_diversity", "free_spread"],
    },
}

FEW_PAIRS = 10
"""Pairs of the small preference set, ties included."""


@cache
def _table() -> Any:
    return preference_table(count=FEW_PAIRS, seed=1)


def few_pairs(folder: Path) -> Path:
    """A small preference set as a parquet file."""
    path = folder / "pairs.parquet"
    pq.write_table(_table(), path)
    return path


def few_prompts(folder: Path, *more: str) -> Path:
    """A prompt file with three prompts of the embedded world, and more."""
    path = folder / "prompts.txt"
    prompts = (
        "a small red circle on a white background",
        "a large blue star on a black background",
        "a large green ring on a navy background",
        *more,
    )
    path.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return path


def small(folder: Path, **changes: Any) -> dict[str, Any]:
    """Keys of a small run, whose data lie in ``folder``."""
    files = {"data": str(few_pairs(folder)), "prompts": str(few_prompts(folder))}
    return merge(merge(SMALL, files), changes)


def as_options(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys as options of the command line."""
    options: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            options += as_options(value, f"{prefix}{key}.")
        else:
            options += ["--set", f"{prefix}{key}={json.dumps(value)}"]
    return options


def metrics(run: Path) -> list[dict[str, Any]]:
    """All lines of metrics, less what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "pairs_per_second")
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def files_of(run: Path) -> dict[str, bytes]:
    """Every file of a run, by its path."""
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.rglob("*")) if file.is_file()}
