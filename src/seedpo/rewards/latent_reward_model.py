"""A diffusion model as a reward of noisy latents: LPO's latent reward model (LRM, arXiv 2502.01051, sec. 4.1).

The encoder half and the middle of a UNet look at x_t; their hidden states, averaged over the image, are projected to
the width of a text embedding:

    f = W [pool(h_1), ..., pool(h_n), g + s (pool(m) - g)],   s(x_t, c, t) = exp(logit_scale) cos(f, text(c))

with h_i the last state of each resolution before it is halved, m the middle's state under the prompt, g its mean under
the empty prompt, and s the guidance. Only the middle is guided ("multiscale, without CFG" in the authors' code). The
text embedding is the pooled output of the model's own text encoder, projected.

:mod:`seedpo.rewards.lrm` reads the published files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from seedpo.core.types import TensorRows

GUIDANCE_SCALE = 7.5
"""Of the middle's features, in training and in use (LPO's code)."""

FIRST_TIME = 1
"""The least noisy time step of LRM's training, 1, 51, ..., 951: clean latents are scored there."""


@dataclass(frozen=True, kw_only=True)
class PromptReading(TensorRows):
    """Prompts as the model reads them.

    Attributes:
        states: hidden states for the UNet, (B, L, C).
        features: what the features of latents are compared with, of length 1, (B, D).
        pooled: pooled embedding for UNets that take one (SDXL), (B, P).
    """

    states: Tensor
    features: Tensor
    pooled: Tensor | None = None


def without_decoder(unet: Any) -> Any:
    """The UNet itself, whose layers behind the middle are gone."""
    for part in ("up_blocks", "conv_norm_out", "conv_act", "conv_out"):
        setattr(unet, part, None)
    return unet


class LatentRewardModel(nn.Module):
    """The network, with the parts and names of the published checkpoints.

    Args:
        unet: a ``UNet2DConditionModel``; its decoder half is dropped.
        text_encoder: a ``CLIPTextModel``.
        text_encoder_2: a ``CLIPTextModelWithProjection`` where the UNet takes two (SDXL); its own projection stands in
            for ``text_projection``.
        width: D, of the space in which features are compared.
        pixels_per_latent: height and width of what one latent stands for, in pixels.
    """

    def __init__(
        self,
        unet: Any,
        text_encoder: Any,
        text_encoder_2: Any | None = None,
        *,
        width: int,
        pixels_per_latent: int = 8,
    ) -> None:
        super().__init__()
        self.pixels_per_latent = pixels_per_latent
        self.unet = without_decoder(unet)
        self.text_encoder = text_encoder
        self.text_encoder_2 = text_encoder_2
        channels = [*unet.config.block_out_channels, unet.config.block_out_channels[-1]]
        self.visual_projection = nn.Linear(sum(channels), width, bias=False)
        text_width = text_encoder.config.hidden_size
        self.text_projection = nn.Linear(text_width, width, bias=False) if text_encoder_2 is None else None
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))

    @property
    def text_encoders(self) -> list[Any]:
        """One or two."""
        return [encoder for encoder in (self.text_encoder, self.text_encoder_2) if encoder is not None]

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the network."""
        dtype: torch.dtype = self.visual_projection.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.visual_projection.weight.device

    def read(self, ids: Tensor, ids_2: Tensor | None = None) -> PromptReading:
        """Prompts from token ids (B, L) of the text encoder, and of the second one where there are two."""
        if self.text_encoder_2 is None:
            assert self.text_projection is not None
            output = self.text_encoder(input_ids=ids)
            features = self.text_projection(output.pooler_output)
            return PromptReading(states=output.last_hidden_state, features=normalize(features.float(), dim=-1))
        first = self.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2]
        second = self.text_encoder_2(input_ids=ids_2, output_hidden_states=True)
        return PromptReading(
            states=torch.cat([first, second.hidden_states[-2]], -1),
            features=normalize(second.text_embeds.float(), dim=-1),
            pooled=second.text_embeds,
        )

    def features(self, latents: Tensor, timestep: Tensor, prompts: PromptReading, empty: PromptReading) -> Tensor:
        """Features (B, D) float32, of length 1, of noisy latents (B, C, H, W) at time steps (B,).

        Args:
            latents: scaled as the UNet expects them.
            timestep: (B,); what is below 1 counts as 1.
            prompts: B rows.
            empty: the empty prompt, B rows.
        """
        count = len(latents)
        both = PromptReading.cat([prompts, empty])
        times = torch.cat([timestep, timestep]).clamp(min=FIRST_TIME)
        states = self._states(torch.cat([latents, latents]).to(self.dtype), times, both)
        *scales, middle = (state.mean((2, 3)) for state in states)
        guided = middle[count:] + GUIDANCE_SCALE * (middle[:count] - middle[count:])
        pooled = torch.cat([*(scale[:count] for scale in scales), guided], -1)
        return normalize(self.visual_projection(pooled).float(), dim=-1)

    def scores(
        self, latents: Tensor, timestep: Tensor, prompts: Sequence[str], read: Callable[[str], PromptReading]
    ) -> Tensor:
        """Scores (B,) float32 of latents (B, C, H, W) at time steps (B,), from the prompts and what reads them."""
        asked = PromptReading.cat([read(prompt) for prompt in prompts])
        empty = read("").repeat_interleave(len(prompts))
        features = self.features(latents, timestep, asked, empty)
        scores: Tensor = self.logit_scale.float().exp() * (features * asked.features).sum(-1)
        return scores

    def _states(self, latents: Tensor, timestep: Tensor, prompts: PromptReading) -> list[Tensor]:
        """The last hidden state of each resolution, before it is halved, and that of the middle."""
        unet = self.unet
        time = unet.time_embedding(unet.get_time_embed(sample=latents, timestep=timestep))
        added = self._added(prompts)
        more = unet.get_aug_embed(emb=time, encoder_hidden_states=prompts.states, added_cond_kwargs=added)
        time = time if more is None else time + more
        hidden, states = unet.conv_in(latents), []
        for block in unet.down_blocks:
            hidden, outputs = block(hidden, time, **_text(block, prompts))
            states.append(outputs[len(block.resnets) - 1])
        text = (
            {"encoder_hidden_states": prompts.states} if getattr(unet.mid_block, "has_cross_attention", False) else {}
        )
        return [*states, unet.mid_block(hidden, time, **text)]

    def _added(self, prompts: PromptReading) -> dict[str, Tensor]:
        """What SDXL's UNet takes beside the prompts: images count as drawn in its own size and not cropped."""
        if prompts.pooled is None:
            return {}
        size = float(self.image_size)
        sizes = torch.tensor([size, size, 0.0, 0.0, size, size], dtype=self.dtype, device=self.device)
        return {"text_embeds": prompts.pooled, "time_ids": sizes.repeat(len(prompts.pooled), 1)}

    @property
    def image_size(self) -> int:
        """Height and width of the images that the UNet was made for, in pixels."""
        return self.pixels_per_latent * int(self.unet.config.sample_size)


def _text(block: Any, prompts: PromptReading) -> dict[str, Tensor]:
    """What a block takes of the prompts."""
    return {"encoder_hidden_states": prompts.states} if getattr(block, "has_cross_attention", False) else {}
