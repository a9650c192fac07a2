"""What is generated and measured at evaluations: the same prompts and the same initial latents every time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seedpo.core.sampling import sample_latents
from seedpo.core.stats.bootstrap import mean_interval
from seedpo.data.images import to_pil
from seedpo.errors import TrainingDiverged
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.files import write_aside, write_text
from seedpo.metrics.records import Metric, Samples
from seedpo.protocols import Denoiser, Reward, State


class ImageEvaluation:
    """Generates images with fixed latents, scores them, and stores them as one sheet per evaluation.

    Args:
        prompts: prompts to draw for.
        config: images per prompt, sampler and seed.
        rewards: rewards by name.
        metrics: metrics by name.
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
        self.config = config
        self.rewards = rewards
        enough = config.images_per_prompt
        self.metrics = {name: metric for name, metric in metrics.items() if metric.facts.least_images <= enough}

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
        per_prompt: dict[str, Tensor] = {}
        for name, reward in self.rewards.items():
            scores = reward(images, prompts).detach().float().cpu().view(len(self.prompts), -1)
            per_prompt[f"reward/{name}"] = scores.mean(1)
            figures |= summarise(f"reward/{name}", per_prompt[f"reward/{name}"], seed=self.config.seed)
        for name, metric in self.metrics.items():
            per_prompt[name] = metric.per_prompt(samples)
            figures |= summarise(name, per_prompt[name], finish=metric.facts.finish, seed=self.config.seed)
        save_per_prompt(per_prompt, folder / f"step-{step:06d}.json")
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
            batches.append(
                draw_images(
                    policy,
                    prompts[rows],
                    latents[rows],
                    num_inference_steps=config.num_inference_steps,
                    guidance_scale=config.guidance_scale,
                )
            )
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
        write_text(path, json.dumps(index, indent=1))


def initial_latents(prompts: int, images: int, shape: tuple[int, int, int], *, seed: int) -> Tensor:
    """Latents (P, K, C, H, W), each from a seed of its own, so that it does not depend on how many others there are."""
    rows = [initial_latent(prompt, image, shape, seed=seed) for prompt in range(prompts) for image in range(images)]
    return torch.stack(rows).view(prompts, images, *shape)


def initial_latent(prompt: int, image: int, shape: tuple[int, int, int], *, seed: int) -> Tensor:
    """The latent (C, H, W) from which an image of a prompt is drawn, by their numbers."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + prompt) * 1_009 + image)
    return torch.randn(shape, generator=generator)


def draw_images(
    policy: Denoiser, prompts: Sequence[str], latents: Tensor, *, num_inference_steps: int, guidance_scale: float
) -> Tensor:
    """Images (B, 3, height, width) on the CPU of prompts and their initial latents (B, C, H, W): DDIM with eta 0."""
    clean = sample_latents(
        policy.predict,
        latents.to(policy.device),
        policy.encode_prompts(prompts),
        policy.encode_prompts([""] * len(prompts)),
        policy.schedule,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        eta=0.0,
    )
    return policy.decode(clean).cpu()


def summarise(
    name: str, values: Tensor, *, seed: int, finish: Callable[[float], float] | None = None
) -> dict[str, float]:
    """Mean over prompts and the ends of its 95 % percentile bootstrap interval.

    Args:
        name: key of the mean; the ends are ``<name>/low`` and ``<name>/high``.
        values: one value per prompt, (P,); NaN where there is none.
        seed: seed of the resampling.
        finish: applied to each mean; `None` for nothing.
    """
    interval = mean_interval(values.double().numpy(), seed=seed, finish=finish)
    if not interval.count:
        return {}
    return {name: interval.mean, f"{name}/low": interval.low, f"{name}/high": interval.high}


def save_sheet(images: Tensor, path: Path) -> None:
    """Stores images (P, K, 3, H, W) in [0, 1] as one PNG: a row for each prompt, no gaps."""
    prompts, count, channels, height, width = images.shape
    sheet = images.permute(2, 0, 3, 1, 4).reshape(channels, prompts * height, count * width)
    with write_aside(path) as aside:
        to_pil(sheet).save(aside, format=path.suffix[1:])


def save_per_prompt(values: Mapping[str, Tensor], path: Path) -> None:
    """Stores every figure's values (P,), before they are averaged, as JSON: ``{name: [value or null, ...]}``.

    With them two evaluations can be compared prompt by prompt, which tells smaller differences from chance than two
    intervals do.
    """
    rows = {name: [value if math.isfinite(value) else None for value in row.tolist()] for name, row in values.items()}
    write_text(path, json.dumps(rows))
