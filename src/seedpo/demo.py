"""The demonstration: three methods on the embedded model, each with and without the entropy term, and one report.

Every run is a process of its own with one thread, so that its numbers depend neither on the number of cores nor on
what runs beside it. A finished run is kept, an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seedpo.config import merge
from seedpo.errors import ConfigError, SeedpoError
from seedpo.reports import write_report
from seedpo.sweeps.cells import Cell
from seedpo.sweeps.running import Failure, recipe_text, run_cells

SHARED: Mapping[str, Any] = {
    "lora_rank": 8,
    "clip_range": None,
    "sampling": {"num_inference_steps": 10, "guidance_scale": 3.0},
    "evaluation": {"num_inference_steps": 10, "guidance_scale": 3.0, "num_prompts": 16, "images_per_prompt": 4},
}
"""What all runs share; evaluations use held-out prompts and the same latents."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "diffusion-dpo": {
        "beta": 50.0,
        "gamma": 0.5,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_steps": 64,
        "evaluate_every": 16,
    },
    "spo": {
        "beta": 10.0,
        "gamma": 3.0,
        "reward": "scenes-plain",
        "evaluation": {"rewards": ["scenes-plain", "scenes-scorer"]},
        "learning_rate": 1.5e-3,
        "batch_size": 32,
        "max_steps": 50,
        "evaluate_every": 10,
        "steps": {
            "candidates": 4,
            "plain_steps": 5,
            "min_gap": 0.1,
            "prompts_per_rollout": 16,
            "updates_per_rollout": 3,
        },
    },
    "d3po": {
        "beta": 10.0,
        "gamma": 3.0,
        "learning_rate": 3e-3,
        "batch_size": 16,
        "max_steps": 20,
        "evaluate_every": 10,
        "trajectories": {"images_per_prompt": 4, "prompts_per_rollout": 12, "min_gap": 0.1, "steps_per_pair": 1},
    },
}
"""Settings of each method in the embedded world, chosen so that over-training is seen.

``gamma`` is that of the SEE variant: 3 is the value at which the paper varies beta; on the fixed pairs of Diffusion-DPO
it would saturate every fourth pair, and a smaller one is used. SPO is trained on the scorer that is the easier to hack;
the step-aware one is measured beside it, as a reward that nothing is trained on.
"""


def demo_runs(seeds: int = 1) -> Iterator[Cell]:
    """Base method, SEE variant, and the base method at SEE's temperature (beta' = a), for every method and seed."""
    for seed in range(seeds):
        for method, settings in METHODS.items():
            beta, gamma = settings["beta"], settings["gamma"]
            common = merge(merge(SHARED, settings), {"method": method, "seed": seed})
            variants: Mapping[str, Mapping[str, Any]] = {
                "base": {"gamma": 0.0},
                "see": {},
                "control": {"gamma": 0.0, "beta": beta * (1.0 + gamma)},
            }
            for variant, changes in variants.items():
                config = merge(common, changes)
                yield Cell(name=f"{method}-{variant}-seed{seed}", config=config, steps=int(config["max_steps"]))


def run_demo(
    out: Path, *, seeds: int = 1, only: Sequence[str] = (), processes: int | None = None, fresh: bool = False
) -> Path:
    """Trains what is not trained yet and writes the report.

    Args:
        out: folder for the runs and the report.
        seeds: seeds of each run.
        only: beginnings of runs' names, as ``spo`` or ``spo-base``; all runs if there are none.
        processes: runs trained at the same time; as many as there are cores if not given.
        fresh: train again what is finished; a run whose settings have changed is trained again in any case.

    Returns:
        Path of the report.

    Raises:
        ConfigError: if no run is called so.
        SeedpoError: if a run fails; the message names its log.
    """
    runs = _chosen(list(demo_runs(seeds)), only)
    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        recipe, text = out / f"{run.name}.yaml", recipe_text(run)
        if fresh or (recipe.is_file() and recipe.read_text(encoding="utf-8") != text):
            shutil.rmtree(out / run.name, ignore_errors=True)
        recipe.write_text(text, encoding="utf-8")
    run_cells(out, runs, processes=processes or os.cpu_count(), label="demo", on_end=_stop_at_failure)
    return write_report([out / run.name for run in runs], out / "report.html")


def _chosen(runs: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    for start in only:
        if not any(run.name.startswith(f"{start}-") for run in runs):
            names = dict.fromkeys(run.name.rpartition("-seed")[0] for run in runs)
            raise ConfigError(f"--only {start}: the demonstration has no such run; there are {', '.join(names)}")
    return [run for run in runs if not only or run.name.startswith(tuple(f"{start}-" for start in only))]


def _stop_at_failure(run: Cell, failure: Failure | None) -> None:
    if failure is not None:
        raise SeedpoError(f"the run {run.name} failed; its last words are in {failure.log}")
