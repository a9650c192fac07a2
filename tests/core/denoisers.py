"""A schedule and a denoiser small enough to reason about."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from seedpo.core.processes import DiffusionProcess
from seedpo.models.pipelines.stable_diffusion import TextConditioning


def small_process(dtype: torch.dtype = torch.float32) -> DiffusionProcess:
    """100 training steps of diffusers' scaled-linear betas, noise predicted."""
    betas = torch.linspace(0.03, 0.3, 100, dtype=torch.float64) ** 2
    return DiffusionProcess(alphas_cumprod=torch.cumprod(1 - betas, 0).to(dtype))


def prompts(*values: float, dtype: torch.dtype = torch.float32) -> TextConditioning:
    """One row per value: an embedding (1, 2) filled with it."""
    return TextConditioning(prompt_embeds=torch.tensor(values, dtype=dtype).view(-1, 1, 1).repeat(1, 1, 2))


@dataclass
class Linear:
    """A denoiser, linear in its three arguments, that keeps what it was asked."""

    process: DiffusionProcess = field(default_factory=small_process)
    weight: Tensor | float = 1.0
    calls: list[tuple[Tensor, Tensor, TextConditioning]] = field(default_factory=list)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
        self.calls.append((latents, timestep, conditioning))
        return self.weight * linear(latents, timestep, conditioning)


def linear(latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
    """0.4 x_t + 0.002 t + the prompt's value."""
    prompt = conditioning.prompt_embeds.mean((1, 2))
    return 0.4 * latents + (0.002 * timestep + prompt).to(latents.dtype).view(-1, 1, 1, 1)
