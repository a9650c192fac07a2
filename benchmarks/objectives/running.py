"""One run of the comparison: the number of its steps from its budget, and its file."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.objectives.contenders import (
    AT_END,
    CONTENDERS,
    DRAWING_STEPS,
    METRICS,
    PAIRS,
    PHASES,
    PROXY,
    WORLDS,
    Contender,
    run_keys,
)
from benchmarks.run_files import read_run_file
from benchmarks.runs import Measurement, image_evaluation, train_here
from seedpo.cli.cache_builds import build_cache
from seedpo.core.processes import Process
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.files import write_text
from seedpo.models.policy import build_policy
from seedpo.planning.dry_run import NO_GUESSES, dry_run
from seedpo.rewards.named import build_reward
from seedpo.scenes.pairs import preference_table
from seedpo.training.configuration import resolve_config
from seedpo.training.run import process_of

UNITS = {"policy": 2, "reference": 1, "initial": 1, "sampling": 1}
"""Cost of a row by what it is run for, as in :class:`benchmarks.objectives.contenders.World`."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run: which contender, in which world, in which phase and the how-manieth of it, with which values."""

    world: str
    contender: Contender
    phase: str
    index: int
    rate: float
    second: float | None

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.world}/{self.contender.name}/{self.phase}-{self.index}.json"

    def keys(self, folder: Path) -> dict[str, Any]:
        """Of its configuration, apart from its number of steps."""
        seed, changes = PHASES[self.phase].first_seed + self.index, self.contender.changes(self.rate, self.second)
        return run_keys(self.world, self.contender, changes, seed=seed, folder=folder)


@cache
def evaluation(world: str, phase: str) -> ImageEvaluation:
    """What a phase measures; built once per process."""
    guidance = WORLDS[world].guidance_scale
    rewards = {PROXY: build_reward(PROXY)}
    return image_evaluation(
        PHASES[phase], steps=DRAWING_STEPS, guidance_scale=guidance, rewards=rewards, metrics=METRICS
    )


NAMES = {f"reward/{PROXY}": "proxy", **{name: name for name in METRICS}}
"""The figures of a line, by their names in an evaluation."""


def steps_within(task: Task, folder: Path, budget: float) -> tuple[int, float]:
    """The largest number of steps whose planned cost is within the budget, at least 1, and that cost."""
    keys, guesses = task.keys(folder), replace(NO_GUESSES, kept=task.contender.kept.get(task.world, 1.0))
    process = _process(task.world, json.dumps(keys.get("flow", {}), sort_keys=True))

    def cost(steps: int) -> float:
        config = resolve_config(task.contender.method, {**keys, "max_steps": steps, "evaluate_every": 0})
        rows = dry_run(config, process, guesses).rows
        return float(sum(count * UNITS[part] for (_, part), count in rows.items() if part in UNITS))

    low, high = 1, 2
    while cost(high) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low, cost(low)


@cache
def _process(world: str, flow: str) -> Process:
    method = "spo" if flow != "{}" else "diffusion-dpo"
    config = resolve_config(method, {"model": world, "flow": json.loads(flow)})
    return process_of(config, build_policy(config))


def prepare(folder: Path) -> None:
    """Writes the embedded pairs and caches their latents and prompts for both worlds, unless they are there."""
    pairs = folder / PAIRS
    folder.mkdir(parents=True, exist_ok=True)
    if not pairs.is_file():
        pq.write_table(preference_table(), pairs)
    for world in WORLDS:
        contender = CONTENDERS["diffusion-dpo"]
        build_cache(
            resolve_config(contender.method, run_keys(world, contender, {}, seed=0, folder=folder)), progress=False
        )


def run_task(task: Task, out: Path, *, budget: float | None = None) -> dict[str, Any]:
    """Trains a task and writes its file; a run that diverges is a result too. A finished task is read.

    Args:
        task: what is trained.
        out: folder of all files.
        budget: units of cost; `None`: those of its world.
    """
    path = out / task.name
    known = read_run_file(path)
    if known is not None:
        return known
    steps, planned = steps_within(task, out, budget or WORLDS[task.world].budget)
    every = 0 if task.phase in AT_END else math.ceil(steps / WORLDS[task.world].evaluations)
    measurement = Measurement(evaluation(task.world, task.phase), names=NAMES)
    keys = {**task.keys(out), "max_steps": steps, "evaluate_every": every}
    training = train_here(task.contender.method, keys, measurement)
    result = {
        "rate": task.rate,
        "second": task.second,
        "steps": steps,
        "planned": round(planned, 1),
        "clock": training.clock,
        "failure": training.failure,
        "lines": measurement.lines,
        "training": {name: training.last[name] for name in TRAINING if name in training.last},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result) + "\n")
    return result


TRAINING = ("loss", "accuracy", "margin", "distance", "gradient_factor", "pairs_seen")
"""Figures of the last step that are kept."""
