"""One run of the study: a curve of proxy, truth and diversity, by prompt, and of what sampling makes of its model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.hacking.contenders import CONTENDERS, METRICS, PHASES, SECOND_OPINION, run_keys
from benchmarks.hacking.worlds import WORLDS
from benchmarks.objectives.contenders import DRAWING_STEPS
from benchmarks.objectives.contenders import WORLDS as MODELS
from benchmarks.run_files import read_run_file, rounded
from benchmarks.runs import Line, Measurement, image_evaluation, train_here
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.image_evaluation import ImageEvaluation
from seedpo.files import write_text
from seedpo.rewards.named import build_reward
from seedpo.rewards.settings import RewardDefinition

PROMPTED = ("proxy", "opinion", "truth", "pairwise_diversity")
"""Figures whose values of every prompt are kept."""

SAMPLINGS: Mapping[str, Mapping[float, SamplingControl]] = {
    "strength": {strength: SamplingControl(strength=strength) for strength in (0.5, 0.75)},
    "mixing": {power: SamplingControl(mixing=power) for power in (4.0, 2.0, 1.0, 0.5)},
}
"""What sampling makes of a trained model, by kind and value, from the model before training to the trained one."""

BEST_OF: Mapping[float, SamplingControl] = {count: SamplingControl(strength=0.0, best_of=count) for count in (2, 4)}
"""Best of n of the model before training, by n."""

SAMPLED_AT = (0.5, 1.0)
"""Parts of a run after which its model is drawn from under every control of sampling."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run: which contender with which option, in which world, in which phase and the how-manieth of it."""

    world: str
    contender: str
    option: str
    phase: str
    index: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.world}/{self.contender}/{self.option}/{self.phase}-{self.index}.json"

    def keys(self) -> dict[str, Any]:
        """Of its configuration."""
        contender = CONTENDERS[self.contender]
        option = contender.options[self.option]
        return run_keys(WORLDS[self.world], contender, option, phase=self.phase, index=self.index)


@cache
def evaluation(world: str, phase: str) -> ImageEvaluation:
    """What a phase measures in a world; built once per process."""
    row = WORLDS[world]
    sums = {name: RewardDefinition.model_validate(terms) for name, terms in row.settings.get("rewards", {}).items()}
    return image_evaluation(
        PHASES[phase],
        steps=DRAWING_STEPS,
        guidance_scale=MODELS[row.model].guidance_scale,
        rewards={name: build_reward(name, definitions=sums) for name in dict.fromkeys((row.proxy, SECOND_OPINION))},
        metrics=METRICS,
    )


def names(world: str) -> dict[str, str]:
    """The figures of a line, by their names in an evaluation."""
    rewards = {f"reward/{SECOND_OPINION}": "opinion", f"reward/{WORLDS[world].proxy}": "proxy"}
    return {**rewards, **{name: name for name in METRICS}}


_UNTRAINED: dict[tuple[ImageEvaluation, SamplingControl], Line] = {}
"""What best of n makes of the model before training, which no run has changed."""


def sampled_lines(task: Task, keys: Mapping[str, Any]) -> Callable[[Any, int, Path], Sequence[Line]]:
    """What is measured after an evaluation: at :data:`SAMPLED_AT` parts of the run all controls of sampling."""
    whole = evaluation(task.world, task.phase)
    steps, every = keys["max_steps"], keys["evaluate_every"]
    last = math.ceil(steps / every)
    at = {min(steps, every * round(last * part)) for part in SAMPLED_AT}

    def measured(control: SamplingControl, policy: Any, step: int, folder: Path) -> Line:
        under = Measurement(whole.under(control), names=names(task.world), prompted=PROMPTED)
        return under.figures(policy, step, folder / control.name)

    def lines(policy: Any, step: int, folder: Path) -> Iterator[Line]:
        for kind, controls in SAMPLINGS.items() if step in at else ():
            for value, control in controls.items():
                yield measured(control, policy, step, folder) | {"control": kind, "value": value}
        for value, control in BEST_OF.items() if step == steps else ():
            if (whole, control) not in _UNTRAINED:
                _UNTRAINED[whole, control] = measured(control, policy, step, folder)
            yield _UNTRAINED[whole, control] | {"control": "best of n", "value": value}

    return lambda policy, step, folder: list(lines(policy, step, folder))


def run_task(task: Task, out: Path) -> dict[str, Any]:
    """Trains a task and writes its file; a run that diverges is a result too. A finished task is read."""
    path = out / task.name
    known = read_run_file(path)
    if known is not None:
        return known
    keys = task.keys()
    measurement = Measurement(
        evaluation(task.world, task.phase),
        names=names(task.world),
        prompted=PROMPTED,
        after=sampled_lines(task, keys) if CONTENDERS[task.contender].sampled_by else None,
    )
    training = train_here(keys["method"], keys, measurement)
    result = {
        "steps": keys["max_steps"],
        "clock": training.clock,
        "failure": training.failure,
        "lines": rounded(measurement.lines),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(result) + "\n")
    return result
