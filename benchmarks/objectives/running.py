"""One run in this process: trains with a budget, counts the rows through the network, and keeps the figures."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.objectives.contenders import (
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
from seedpo.cli.cache_builds import build_cache
from seedpo.core.processes import Process
from seedpo.errors import TrainingDiverged
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.files import write_text
from seedpo.metrics.named import build_prompt_metric
from seedpo.models.policy import build_policy
from seedpo.planning.dry_run import NO_GUESSES, dry_run
from seedpo.rewards.named import build_reward
from seedpo.scenes.pairs import preference_table
from seedpo.scenes.prompts import EVALUATION_PROMPTS
from seedpo.training.accelerator import build_accelerator
from seedpo.training.configuration import resolve_config
from seedpo.training.run import process_of, train

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


class Counter:
    """Counts rows through a network while it is open."""

    def __init__(self) -> None:
        self.open = True
        self.units = 0

    def hook(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Called after each forward pass."""
        if self.open:
            first = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
            self.units += len(first) * (2 if torch.is_grad_enabled() else 1)


@cache
def image_evaluation(world: str, phase: str) -> ImageEvaluation:
    """What a phase measures; built once per process."""
    settings = PHASES[phase]
    prompts = EVALUATION_PROMPTS[settings.first : settings.last]
    config = EvaluationConfig(
        num_prompts=len(prompts),
        images_per_prompt=settings.images,
        num_inference_steps=DRAWING_STEPS,
        guidance_scale=WORLDS[world].guidance_scale,
        seed=settings.seed,
        batch_size=96,
    )
    rewards = {PROXY: build_reward(PROXY)}
    return ImageEvaluation(
        prompts, config=config, rewards=rewards, metrics={name: build_prompt_metric(name) for name in METRICS}
    )


_BEFORE: dict[tuple[str, str], dict[str, float]] = {}
"""Figures before training, by world and phase: no run has changed the model yet."""


class Measurement:
    """The evaluator of a run: figures by step, with the units and the processor time of training until then."""

    def __init__(self, world: str, phase: str) -> None:
        self.key = (world, phase)
        self.counter = Counter()
        self.lines: list[dict[str, float]] = []
        self._seconds = 0.0
        self._since = time.process_time()

    def __call__(self, policy: Any, *, step: int, folder: Path) -> Mapping[str, float]:
        """Draws and measures, outside the count."""
        if step == 0:
            policy.module.register_forward_hook(self.counter.hook, with_kwargs=True)
        self._seconds += time.process_time() - self._since
        self.counter.open = False
        figures = _BEFORE.get(self.key) if step == 0 else None
        if figures is None:
            measured = image_evaluation(*self.key)(policy, step=step, folder=folder)
            figures = {name.removeprefix("reward/"): value for name, value in measured.items() if "/low" not in name}
            figures = {("proxy" if name == PROXY else name): figures[name] for name in (PROXY, *METRICS)}
        if step == 0:
            _BEFORE[self.key] = figures
        line = {"step": step, "units": self.counter.units, "seconds": round(self._seconds, 2), **figures}
        self.lines.append(line)
        self.counter.open = True
        self._since = time.process_time()
        return figures


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
    if path.is_file():
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return result
    torch.set_num_threads(1)
    steps, planned = steps_within(task, out, budget or WORLDS[task.world].budget)
    every = 0 if PHASES[task.phase].at_end else math.ceil(steps / WORLDS[task.world].evaluations)
    keys = {**task.keys(out), "max_steps": steps, "evaluate_every": every}
    measurement, started = Measurement(task.world, task.phase), time.time()
    folder = Path(tempfile.mkdtemp(prefix="objectives-"))
    last: Mapping[str, Any] = {}
    failure = ""
    try:
        config = resolve_config(task.contender.method, keys)
        last = train(
            config,
            folder / "run",
            accelerator=build_accelerator("no"),
            evaluator=measurement,
            progress=False,
        )
    except TrainingDiverged as error:
        failure = str(error).replace(str(folder), "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "rate": task.rate,
        "second": task.second,
        "steps": steps,
        "planned": round(planned, 1),
        "clock": round(time.time() - started, 1),
        "failure": failure,
        "lines": measurement.lines,
        "training": {name: last[name] for name in TRAINING if name in last},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result) + "\n")
    return result


TRAINING = ("loss", "accuracy", "margin", "distance", "gradient_factor", "pairs_seen")
"""Figures of the last step that are kept."""
