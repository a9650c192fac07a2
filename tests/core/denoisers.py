"""A schedule and a denoiser small enough to reason about."""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.core.diffusion import NoiseSchedule
from seedpo.core.types import Conditioning


def small_schedule(dtype: torch.dtype = torch.float32) -> NoiseSchedule:
    """100 training steps of diffusers' scaled-linear betas, noise predicted."""
    betas = torch.linspace(0.03, 0.3, 100, dtype=torch.float64) ** 2
    return NoiseSchedule(alphas_cumprod=torch.cumprod(1 - betas, 0).to(dtype))


def prompts(*values: float, dtype: torch.dtype = torch.float32) -> Conditioning:
    """One row per value: an embedding (1, 2) filled with it."""
    return Conditioning(prompt_embeds=torch.tensor(values, dtype=dtype).view(-1, 1, 1).repeat(1, 1, 2))


class Recorder:
    """A denoiser, linear in its three arguments, that keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Conditioning]] = []

    def __call__(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        self.calls.append((latents, timestep, conditioning))
        return linear(latents, timestep, conditioning)


def linear(latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
    """0.4 x_t + 0.002 t + the prompt's value."""
    prompt = conditioning.prompt_embeds.mean((1, 2))
    return 0.4 * latents + (0.002 * timestep + prompt).to(latents.dtype).view(-1, 1, 1, 1)
