"""A diffusion model that is asked and never trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from seedpo.core.diffusion import NoiseSchedule
from seedpo.core.types import Conditioning
from seedpo.models.stable_diffusion import StableDiffusionPolicy


class FrozenModel:
    """The reference of a policy as a denoiser of its own.

    Its autoencoder decodes previews throughout, so that it stays on the device when latents are cached.

    Args:
        policy: the model; its adapter is never switched on.
    """

    def __init__(self, policy: StableDiffusionPolicy) -> None:
        self.policy = policy

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise levels and the kind of prediction."""
        return self.policy.schedule

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one latent image."""
        return self.policy.latent_shape

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""
        return self.policy.device

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Embeds prompts, one row each."""
        return self.policy.encode_prompts(prompts)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The untrained network's raw prediction (B, C, H, W), without gradient."""
        with self.policy.reference():
            return self.policy.predict(latents, timestep, conditioning)

    def encode_images(self, images: Tensor) -> Tensor:
        """Latents (B, C, H, W) of images (B, 3, height, width) in [0, 1]."""
        return self.policy.encode_images(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, height, width) in [0, 1] of latents (B, C, H, W)."""
        return self.policy.decode(latents)

    def release(self, *parts: Literal["text_encoder", "vae"]) -> None:
        """Keeps the text encoders in main memory from now on, where they are named."""
        self.policy.release(*(part for part in parts if part != "vae"))
