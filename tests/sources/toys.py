"""A denoiser that is a formula, and rewards that remember what they were asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seedpo.core.diffusion import NoiseSchedule
from seedpo.core.types import Conditioning

SHAPE = (3, 2, 2)
PROMPTS = ("one", "two", "three", "four", "five", "six", "seven")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def schedule(*, last_step_has_density: bool = True) -> NoiseSchedule:
    """100 training steps; the final level decides whether the last step is deterministic at eta 1."""
    alphas = torch.cumprod(1 - torch.linspace(0.03, 0.3, 100, dtype=torch.float64) ** 2, 0).float()
    final = float(alphas[0]) if last_step_has_density else 1.0
    return NoiseSchedule(
        alphas_cumprod=alphas, final_alpha_cumprod=final, steps_offset=1 if last_step_has_density else 0
    )


@dataclass
class ToyDenoiser:
    """Linear in latents, time step and prompt; its images are the latents, squashed into [0, 1]."""

    schedule: NoiseSchedule = field(default_factory=schedule)
    latent_shape: tuple[int, int, int] = SHAPE
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    encoded: int = 0

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        values = [sum(map(ord, prompt)) / 1000 for prompt in prompts]
        return Conditioning(prompt_embeds=torch.tensor(values).view(-1, 1, 1).repeat(1, 2, 2))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        self.asked.append((latents, timestep))
        assert len(latents) == len(timestep) == len(conditioning)
        prompt = conditioning.prompt_embeds.mean((1, 2))
        return 0.4 * latents + (0.002 * timestep + prompt).to(latents.dtype).view(-1, 1, 1, 1)

    def encode_images(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return 3.0 * images[:, :, ::16, ::16]

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents)

    def rows(self) -> int:
        """Rows that were predicted."""
        return sum(len(latents) for latents, _ in self.asked)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return 5.0 * images.mean((1, 2, 3))


@dataclass
class ToyReward:
    """Remembers images, prompts, time steps and scores of every call."""

    score: Callable[[Tensor, Sequence[str]], Tensor] = brightness
    images: list[Tensor] = field(default_factory=list)
    prompts: list[list[str]] = field(default_factory=list)
    timesteps: list[Tensor | None] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)

    def __call__(self, images: Tensor, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        scores = self.score(images, prompts)
        self.images.append(images)
        self.prompts.append(list(prompts))
        self.timesteps.append(timestep)
        self.scores.append(scores)
        return scores
