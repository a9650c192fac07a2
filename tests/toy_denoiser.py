"""A text-to-image model of no weights: its latents are its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seedpo.core.processes import DiffusionProcess
from seedpo.models.pipelines.stable_diffusion import TextConditioning

STEPS = 100


class ToyDenoiser:
    """Predicts for every pixel the mean colour of its image, and a little of the prompt's value.

    Images (3, 8, 8) in [0, 1] are latents in [-1, 1]. A prompt's value is a hundredth of its number of letters.
    """

    conditioning_type = TextConditioning

    def __init__(self, size: int = 8) -> None:
        betas = torch.linspace(0.03, 0.3, STEPS, dtype=torch.float64) ** 2
        self.process = DiffusionProcess(
            alphas_cumprod=torch.cumprod(1 - betas, 0).float(), prediction_type="sample", steps_offset=1
        )
        self.latent_shape = (3, size, size)
        self.device = torch.device("cpu")
        self.calls: list[tuple[Tensor, Tensor]] = []
        """Latents and time steps of every prediction that was asked for."""
        self.encoded = 0
        """Images that were encoded."""

    def encode_prompts(self, prompts: Sequence[str]) -> TextConditioning:
        values = torch.tensor([len(prompt) / 100 for prompt in prompts])
        return TextConditioning(prompt_embeds=values.view(-1, 1, 1).expand(-1, 2, 4))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
        self.calls.append((latents, timestep))
        prompt = conditioning.prompt_embeds.mean((1, 2)).view(-1, 1, 1, 1)
        return (latents.mean((2, 3), keepdim=True) + prompt).expand_as(latents)

    def encode_images(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return images * 2 - 1

    def decode(self, latents: Tensor) -> Tensor:
        return (latents / 2 + 0.5).clamp(0, 1)
