"""The evaluation of a policy in training: the same prompts and the same initial latents every time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from seedpo.core.stats.bootstrap import mean_interval
from seedpo.data.pairs.fingerprints import prompts_fingerprint
from seedpo.errors import TrainingDiverged
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.drawing import as_samples, choice_by, controlled, draw_best
from seedpo.evaluation.gains import save_scores
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.evaluation.sheets import save_sheet, sheet_file, write_index
from seedpo.files import write_text
from seedpo.metrics.records import Metric, Samples
from seedpo.protocols import Denoiser, Fingerprint, Reward, State


class ImageEvaluation:
    """Draws images from fixed latents, scores them, and stores them as one sheet per evaluation.

    Args:
        prompts: prompts to draw for.
        config: images per prompt, sampler, seed and what is done to the model at sampling.
        rewards: rewards by name; the first picks the best of several images, where several are drawn.
        metrics: metrics by name; those that need more images per prompt are left out.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        *,
        config: EvaluationConfig,
        rewards: Mapping[str, Reward],
        metrics: Mapping[str, Metric],
    ) -> None:
        self.prompts = list(prompts)
        self.drawing = config.drawing
        self.control = config.control
        self.rewards = rewards
        self.metrics = {
            name: metric for name, metric in metrics.items() if metric.facts.least_images <= self.drawing.images
        }

    def under(self, control: SamplingControl) -> ImageEvaluation:
        """The same evaluation of what the policy draws under another control."""
        other = copy(self)
        other.control = control
        return other

    def fingerprints(self) -> Mapping[str, Fingerprint]:
        """What tells the prompts from others."""
        return {"evaluation.prompts": prompts_fingerprint(self.prompts)}

    def __call__(self, policy: Denoiser, *, step: int, folder: Path) -> Mapping[str, float]:
        """Draws and measures on one process; see :meth:`measure`."""
        return self.measure([self.draw(policy, rank=0, world=1)], step=step, folder=folder)

    def draw(self, policy: Denoiser, *, rank: int, world: int) -> State:
        """Every ``world``-th batch of images, from batch ``rank`` on: ``{"batches": [(N, 3, H, W), ...]}``.

        Raises:
            ConfigError: if the control does not fit the policy, or wants a reward to pick and there is none.
        """
        batches = self.drawing.batches(len(self.prompts))[rank::world]
        choice = choice_by(next(iter(self.rewards.values()), None), self.control)
        with controlled(policy, self.control) as denoiser:
            return {"batches": [draw_best(denoiser, self.prompts, batch, self.drawing, choice) for batch in batches]}

    def measure(self, parts: Sequence[State], *, step: int, folder: Path) -> Mapping[str, float]:
        """Means over prompts, each with the ends of its 95 % bootstrap interval as ``<name>/low`` and ``/high``.

        Args:
            parts: what :meth:`draw` returned on each process, in the order of their ranks.
            step: optimiser steps taken.
            folder: where the images are stored.

        Raises:
            TrainingDiverged: if the policy draws images that are not finite.
        """
        samples = self._samples(parts)
        if not torch.isfinite(samples.images).all():
            raise TrainingDiverged(
                f"step {step}: the evaluation's images are not finite, so the weights have diverged; "
                "lower learning_rate, beta or gamma"
            )
        folder.mkdir(parents=True, exist_ok=True)
        save_sheet(samples.images, sheet_file(folder, step))
        write_index(samples, folder)
        images, prompts = samples.flat()
        figures: dict[str, float] = {}
        per_prompt: dict[str, Tensor] = {}
        per_image: dict[str, list[list[float]]] = {}
        for name, reward in self.rewards.items():
            scores = reward(images, prompts).detach().float().cpu().view(len(self.prompts), -1)
            per_image[name] = scores.tolist()
            per_prompt[f"reward/{name}"] = scores.mean(1)
            figures |= interval_figures(f"reward/{name}", per_prompt[f"reward/{name}"], seed=self.drawing.seed)
        for name, metric in self.metrics.items():
            per_prompt[name] = metric.per_prompt(samples)
            figures |= interval_figures(name, per_prompt[name], finish=metric.facts.finish, seed=self.drawing.seed)
        save_scores(per_image, folder, step)
        save_per_prompt(per_prompt, sheet_file(folder, step).with_suffix(".json"))
        return figures

    def place(self, device: torch.device) -> None:
        """Moves the networks of the rewards to a device."""
        for reward in self.rewards.values():
            if hasattr(reward, "to"):
                reward.to(device)

    def _samples(self, parts: Sequence[State]) -> Samples:
        """The images of all processes in the order of the prompts."""
        # Process r of W drew the batches r, r + W, r + 2 W, ...: round n holds the batches n W to n W + W - 1.
        drawn = [part["batches"] for part in parts]
        rounds = range(max(map(len, drawn)))
        return as_samples(
            torch.cat([batches[turn] for turn in rounds for batches in drawn if turn < len(batches)]), self.prompts
        )


def interval_figures(
    name: str, values: Tensor, *, seed: int, finish: Callable[[float], float] | None = None
) -> dict[str, float]:
    """Mean over prompts and the ends of its 95 % percentile bootstrap interval; empty if there is no value.

    Args:
        name: key of the mean; the ends are ``<name>/low`` and ``<name>/high``.
        values: one value per prompt, (P,); NaN where there is none.
        seed: of the resampling.
        finish: applied to each mean; `None` for nothing.
    """
    interval = mean_interval(values.double().numpy(), seed=seed, finish=finish)
    if not interval.count:
        return {}
    return {name: interval.mean, f"{name}/low": interval.low, f"{name}/high": interval.high}


def save_per_prompt(values: Mapping[str, Tensor], path: Path) -> None:
    """Stores every figure's values (P,), before they are averaged, as JSON: ``{name: [value or null, ...]}``.

    With them two evaluations can be compared prompt by prompt, which detects smaller differences than two intervals do.
    """
    rows = {name: [value if math.isfinite(value) else None for value in row.tolist()] for name, row in values.items()}
    write_text(path, json.dumps(rows))
