"""A trained denoiser whose predictions are mixed with those of the model before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seedpo.core.mixing import mixed_prediction, tuned_share
from seedpo.core.processes import Process
from seedpo.core.types import Conditioning
from seedpo.protocols import TrainedDenoiser


@dataclass(frozen=True, kw_only=True)
class BothConditionings(Conditioning):
    """Prompts as both models embed them: they differ where text encoders are trained.

    Attributes:
        tuned: of the trained model.
        base: of the model before training.
    """

    tuned: Conditioning
    base: Conditioning


@dataclass(frozen=True)
class MixedDenoiser:
    """Annealed importance guidance (arXiv 2409.06493) as a :class:`seedpo.protocols.Denoiser`.

    Each prediction is :func:`seedpo.core.mixing.mixed_prediction` of two passes, before any guidance. Classifier-free
    guidance is linear, so that its order does not matter.

    Attributes:
        denoiser: the trained model, which knows the one before training.
        power: p of :func:`seedpo.core.mixing.tuned_share`.
    """

    denoiser: TrainedDenoiser
    power: float

    @property
    def process(self) -> Process:
        """That of both models."""
        return self.denoiser.process

    @property
    def conditioning_type(self) -> type[Conditioning]:
        """:class:`BothConditionings`."""
        return BothConditionings

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """That of both models."""
        return self.denoiser.latent_shape

    @property
    def device(self) -> torch.device:
        """That of the trained model."""
        return self.denoiser.device

    def encode_prompts(self, prompts: Sequence[str]) -> BothConditionings:
        """Prompts as both models embed them."""
        tuned = self.denoiser.encode_prompts(prompts)
        with self.denoiser.initial():
            return BothConditionings(tuned=tuned, base=self.denoiser.encode_prompts(prompts))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The mixture of both predictions, (B, ...)."""
        tuned = self.denoiser.predict(latents, timestep, conditioning.tuned)
        with self.denoiser.initial():
            base = self.denoiser.predict(latents, timestep, conditioning.base)
        time = timestep.to(tuned.dtype)
        share = tuned_share(time, pure_noise_time=self.process.pure_noise_time, power=self.power)
        return mixed_prediction(base, tuned, share)

    def encode_images(self, images: Tensor) -> Tensor:
        """By the one autoencoder."""
        return self.denoiser.encode_images(images)

    def decode(self, latents: Tensor) -> Tensor:
        """By the one autoencoder."""
        return self.denoiser.decode(latents)
