"""A small run, and evaluations that take a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from seedpo.evaluation.evaluate import Measures, evaluate
from seedpo.evaluation.score import Scoring
from seedpo.evaluation.settings import Drawing
from seedpo.evaluation.summary import Summary
from seedpo.evaluation.targets import ModelOptions
from seedpo.training.configuration import resolve_config
from seedpo.training.run import train
from tests.small_runs import few_prompts, small

REWARDS = ("scenes-scorer",)


def trained_run(folder: Path) -> Path:
    """A run of two steps with large changes, evaluated and saved at each."""
    changes = {
        "learning_rate": 0.03,
        "evaluate_every": 1,
        "checkpoint_every": 1,
        "checkpoints_limit": 3,
        "evaluation": {"rewards": ["scenes-scorer"], "metrics": ["truth", "free_spread"]},
    }
    out = folder / "run"
    train(resolve_config("diffusion-dpo", small(folder, **changes)), out, progress=False)
    return out


def drawing(**changes: Any) -> Drawing:
    settings = {"images": 2, "num_inference_steps": 2, "guidance_scale": 2.0, "seed": 3, "batch_size": 4}
    return Drawing(**(settings | changes))


def small_evaluation(
    targets: list[str],
    out: Path,
    *,
    rewards: tuple[str, ...] = REWARDS,
    metrics: tuple[str, ...] = (),
    prompts: str | None = None,
    options: ModelOptions | None = None,
    measures: dict[str, Any] | None = None,
    scoring: dict[str, Any] | None = None,
    **changes: Any,
) -> Summary:
    """Three prompts, two images of each."""
    found = evaluate(
        targets,
        out,
        prompts=prompts or str(few_prompts(out.parent)),
        drawing=drawing(**changes),
        measures=Measures(
            rewards=rewards,
            metrics=metrics,
            scoring=Scoring(progress=False, **(scoring or {})),
            **(measures or {}),
        ),
        options=options,
    )
    assert found is not None
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table."""
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def images(out: Path, label: str) -> dict[str, bytes]:
    """Image files of a target."""
    return {path.name: path.read_bytes() for path in sorted((out / "images" / label).rglob("*.png"))}


def summary(out: Path) -> dict[str, Any]:
    """What ``summary.json`` says."""
    content: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return content
