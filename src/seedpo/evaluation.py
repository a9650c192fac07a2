"""What is generated and measured at evaluations: the same prompts and the same initial latents every time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedpo.config import EvaluationConfig
from seedpo.core.sampling import sample_latents
from seedpo.errors import TrainingDiverged
from seedpo.protocols import Denoiser, Metric, Reward, Samples, State, unchanged

RESAMPLES = 1000
"""Bootstrap resamples behind each interval."""


class ImageEvaluation:
    """Generates images with fixed latents, scores them, and stores them as one sheet per evaluation.

    Args:
        prompts: prompts to draw for.
        config: images per prompt, sampler and seed.
        rewards: rewards by name.
        metrics: metrics to measure.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        *,
        config: EvaluationConfig,
        rewards: Mapping[str, Reward],
        metrics: Sequence[Metric],
    ) -> None:
        self.prompts = list(prompts)
        self.config = config
        self.rewards = rewards
        self.metrics = [metric for metric in metrics if metric.least_images <= config.images_per_prompt]

    def __call__(self, policy: Denoiser, *, step: int, folder: Path) -> Mapping[str, float]:
        """Draws and measures on one process; see :meth:`measure`."""
        return self.measure([self.draw(policy, rank=0, world=1)], step=step, folder=folder)

    def measure(self, parts: Sequence[State], *, step: int, folder: Path) -> Mapping[str, float]:
        """Means over prompts, each with the ends of its 95 % bootstrap interval as ``<name>/low`` and ``/high``.

        Args:
            parts: what :meth:`draw` gave on each process, in the order of their ranks.
            step: optimiser steps taken.
            folder: where the images are stored.

        Raises:
            TrainingDiverged: if the policy draws images that are not finite.
        """
        samples = self._joined(parts)
        if not torch.isfinite(samples.images).all():
            raise TrainingDiverged(
                f"step {step}: the evaluation's images are not finite, so the weights have diverged; "
                "lower learning_rate, beta or gamma"
            )
        folder.mkdir(parents=True, exist_ok=True)
        save_sheet(samples.images, folder / f"step-{step:06d}.png")
        self._write_index(samples, folder / "index.json")
        images, prompts = samples.flat()
        figures: dict[str, float] = {}
        for name, reward in self.rewards.items():
            scores = reward(images, prompts).detach().float().cpu().view(len(self.prompts), -1)
            figures |= summarise(f"reward/{name}", scores.mean(1), seed=self.config.seed)
        for metric in self.metrics:
            figures |= summarise(metric.name, metric.per_prompt(samples), finish=metric.finish, seed=self.config.seed)
        return figures

    def place(self, device: torch.device) -> None:
        """Moves the networks of the rewards to a device."""
        for reward in self.rewards.values():
            if hasattr(reward, "to"):
                reward.to(device)

    def generate(self, policy: Denoiser) -> Samples:
        """Images of all prompts; DDIM with eta 0, so that an image is a function of its initial latents."""
        return self._joined([self.draw(policy, rank=0, world=1)])

    def draw(self, policy: Denoiser, *, rank: int, world: int) -> State:
        """Every ``world``-th batch of images, from batch ``rank`` on: ``{"batches": [(N, 3, H, W), ...]}``.

        Whole batches are dealt out, so that an image is computed beside the same others on any number of processes,
        and comes out the same bit for bit.
        """
        count, config = self.config.images_per_prompt, self.config
        latents = initial_latents(len(self.prompts), count, policy.latent_shape, seed=config.seed).flatten(0, 1)
        prompts = [prompt for prompt in self.prompts for _ in range(count)]
        batches = []
        for start in range(rank * config.batch_size, len(prompts), world * config.batch_size):
            rows = slice(start, start + config.batch_size)
            clean = sample_latents(
                policy.predict,
                latents[rows].to(policy.device),
                policy.encode_prompts(prompts[rows]),
                policy.encode_prompts([""] * len(prompts[rows])),
                policy.schedule,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                eta=0.0,
            )
            batches.append(policy.decode(clean).cpu())
        return {"batches": batches}

    def _joined(self, parts: Sequence[State]) -> Samples:
        """The images of all processes in the order of the prompts."""
        dealt = [part["batches"] for part in parts]
        rounds = max(len(batches) for batches in dealt)
        images = torch.cat([batches[turn] for turn in range(rounds) for batches in dealt if turn < len(batches)])
        shape = (len(self.prompts), self.config.images_per_prompt, *images.shape[1:])
        return Samples(images=images.view(shape), prompts=self.prompts)

    def _write_index(self, samples: Samples, path: Path) -> None:
        index = {"tile": samples.images.shape[-1], "columns": samples.images.shape[1], "prompts": self.prompts}
        aside = path.with_name(path.name + ".tmp")
        aside.write_text(json.dumps(index, indent=1), encoding="utf-8")
        aside.replace(path)


def initial_latents(prompts: int, images: int, shape: tuple[int, int, int], *, seed: int) -> Tensor:
    """Latents (P, K, C, H, W), each from a seed of its own, so that it does not depend on how many others there are."""
    rows = []
    for prompt in range(prompts):
        for image in range(images):
            generator = torch.Generator().manual_seed((seed * 1_000_003 + prompt) * 1_009 + image)
            rows.append(torch.randn(shape, generator=generator))
    return torch.stack(rows).view(prompts, images, *shape)


def summarise(
    name: str, values: Tensor, *, seed: int, finish: Callable[[float], float] = unchanged
) -> dict[str, float]:
    """Mean over prompts and the ends of its 95 % percentile bootstrap interval.

    Args:
        name: key of the mean; the ends are ``<name>/low`` and ``<name>/high``.
        values: one value per prompt, (P,); NaN where there is none.
        seed: seed of the resampling.
        finish: applied to each mean.
    """
    known = values[~torch.isnan(values)].double().numpy()
    if not len(known):
        return {}
    resamples = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    means = known[resamples].mean(1)
    low, high = (finish(float(end)) for end in np.quantile(means, [0.025, 0.975]))
    return {name: finish(float(known.mean())), f"{name}/low": low, f"{name}/high": high}


def save_sheet(images: Tensor, path: Path) -> None:
    """Stores images (P, K, 3, H, W) in [0, 1] as one PNG: a row for each prompt, no gaps."""
    prompts, count, channels, height, width = images.shape
    sheet = images.permute(0, 3, 1, 4, 2).reshape(prompts * height, count * width, channels)
    # Written aside: whoever looks while it is written, or after a crash, sees whole sheets only.
    aside = path.with_name(path.name + ".tmp")
    Image.fromarray((sheet * 255.0).round().byte().numpy()).save(aside, format=path.suffix[1:])
    aside.replace(path)
