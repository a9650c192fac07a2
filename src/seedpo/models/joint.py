"""The denoising network and the text encoders as one network, where all of them are trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seedpo.core.types import Conditioning
from seedpo.models.families import Family


class JointNetwork(nn.Module):
    """Embeds prompts and predicts, in one call: what processes exchange gradients of.

    Args:
        pipeline: its parts become children, under their names.
        family: of the pipeline.
        gradient_checkpointing: whether the text encoders' activations are computed again in the backward pass.
    """

    def __init__(self, pipeline: Any, family: Family, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.family, self.gradient_checkpointing = family, gradient_checkpointing
        for name in (family.network, *family.text_parts):
            self.add_module(name, getattr(pipeline, name))

    def forward(self, latents: Tensor, timestep: Tensor, tokens: Conditioning, dtype: torch.dtype) -> Tensor:
        """The network's raw prediction; see :class:`seedpo.models.families.Family`.

        Args:
            latents: (B, ...).
            timestep: (B,).
            tokens: of the family's ``tokenize``, B rows.
            dtype: number format of the network's inputs.
        """
        network = self.get_submodule(self.family.network)
        return self.family.predict(network, latents, timestep, self._embedded(tokens), dtype)

    def _embedded(self, tokens: Conditioning) -> Conditioning:
        encoders = self.family.text_encoders(self)
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return self.family.embed_tokens(encoders, tokens)
        embedded: Conditioning = checkpoint(self.family.embed_tokens, encoders, tokens, use_reentrant=False)
        return embedded
