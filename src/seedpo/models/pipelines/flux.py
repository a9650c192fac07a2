"""FLUX.1: a transformer on packed latents, a CLIP for the pooled prompt, a T5 for its words, flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.models.families import Family, PromptForm, Size, widened
from seedpo.models.pipelines.parts import (
    CLIP_ATTENTION,
    JOINT_ATTENTION,
    evenly,
    few_step_name,
    flow_process,
    image_size,
    latent_shape,
    linear_mu,
    packed,
    t5_states,
    token_ids,
    unpacked,
)
from seedpo.models.samplers import FLOW_SAMPLERS

GUIDANCE = 3.5
"""Of FLUX.1-dev: the pipeline's default, and what published runs train with."""


@dataclass(frozen=True, kw_only=True)
class FluxConditioning(Conditioning):
    """Embedded prompts.

    Attributes:
        prompt_embeds: states of the T5, (B, L, D).
        pooled_prompt_embeds: of the CLIP, (B, P).
        guidance: that the network takes as an input, (B,); ``None`` where it takes none.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    guidance: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class FluxTokens(Conditioning):
    """Prompts as the tokenizers read them.

    Attributes:
        ids: for the CLIP, (B, L) int64.
        ids_2: for the T5, (B, L) int64.
        guidance: as in :class:`FluxConditioning`.
    """

    ids: Tensor
    ids_2: Tensor
    guidance: Tensor | None = None


def _cell(pipeline: Any) -> int:
    """Pixels of one token's side."""
    return int(2 * pipeline.vae_scale_factor)


def _process(pipeline: Any, size: Size) -> FlowProcess:
    tokens = (size[0] // _cell(pipeline)) * (size[1] // _cell(pipeline))
    return flow_process(pipeline, mu=lambda count: linear_mu(pipeline.scheduler, tokens), sigmas=evenly)


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    usual = pipeline.default_sample_size * pipeline.vae_scale_factor
    return image_size(resolution, usual=usual, multiple=_cell(pipeline))


def _takes_guidance(pipeline: Any) -> bool:
    return bool(pipeline.transformer.config.guidance_embeds)


def _distilled(pipeline: Any) -> str | None:
    """FLUX.1-schnell is the one without embedded guidance and with unshifted levels."""
    if not _takes_guidance(pipeline) and not pipeline.scheduler.config.use_dynamic_shifting:
        return (
            "a network without embedded guidance and with unshifted levels is FLUX.1-schnell, made to draw in one to "
            "four steps; training blurs what it draws; train FLUX.1-dev"
        )
    return few_step_name(pipeline)


def _unguided(pipeline: Any) -> str | None:
    if _takes_guidance(pipeline):
        return "its guidance is an input of the network: set embedded_guidance"
    return "FLUX.1-schnell draws without guidance" if _distilled(pipeline) else None


def _tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> FluxTokens:
    assert form.length is not None
    assert form.guidance is not None
    if not _takes_guidance(pipeline) and form.guidance != GUIDANCE:
        raise ConfigError(
            f"embedded_guidance = {form.guidance:g}: this FLUX.1 takes no guidance as an input; leave it out"
        )
    return FluxTokens(
        ids=token_ids(pipeline.tokenizer, prompts, pipeline.tokenizer_max_length),
        ids_2=token_ids(pipeline.tokenizer_2, prompts, form.length),
        guidance=torch.full((len(prompts),), form.guidance) if _takes_guidance(pipeline) else None,
    )


def _embed_tokens(encoders: Sequence[Any], tokens: FluxTokens) -> FluxConditioning:
    """The CLIP's pooled embedding and the T5's states."""
    clip, t5 = encoders
    pooled = widened(clip(tokens.ids.to(clip.device)).pooler_output)
    return FluxConditioning(
        prompt_embeds=t5_states(t5, tokens.ids_2),
        pooled_prompt_embeds=pooled,
        guidance=None if tokens.guidance is None else tokens.guidance.to(pooled.device),
    )


def _predict(
    transformer: nn.Module, latents: Tensor, sigma: Tensor, conditioning: FluxConditioning, dtype: torch.dtype
) -> Tensor:
    height, width = latents.shape[-2:]
    text = conditioning.prompt_embeds
    velocity: Tensor = transformer(
        hidden_states=packed(latents.to(dtype)),
        timestep=sigma.to(dtype),
        guidance=conditioning.guidance,
        pooled_projections=conditioning.pooled_prompt_embeds.to(dtype),
        encoder_hidden_states=text.to(dtype),
        txt_ids=torch.zeros(text.shape[1], 3, device=latents.device),
        img_ids=_places(height // 2, width // 2).to(latents.device),
        return_dict=False,
    )[0]
    return unpacked(velocity, height, width)


def _places(rows: int, columns: int) -> Tensor:
    """Where each token of an image lies: 0, row, column; (rows x columns, 3)."""
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float())
    return places.view(-1, 3)


FLUX = Family(
    pipeline=FluxPipeline,
    network="transformer",
    text_parts=("text_encoder", "text_encoder_2"),
    process=_process,
    image_size=_image_size,
    latent_shape=partial(latent_shape, cells=4),
    latent_channels=lambda transformer, vae: (transformer.config.in_channels // 4, vae.config.latent_channels),
    conditioning=FluxConditioning,
    tokens=FluxTokens,
    tokenize=_tokenize,
    embed_tokens=_embed_tokens,
    predict=_predict,
    max_sequence_length=512,
    longest_text=512,
    embedded_guidance=GUIDANCE,
    distilled=_distilled,
    unguided=_unguided,
    usual_guidance=1.0,
    adapter_layers={
        "attention": JOINT_ATTENTION,
        # The last layer of a single block gives the outputs of attention and feed-forward in one.
        "mlp": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
    },
    text_layers={"text_encoder": CLIP_ATTENTION},
    own_sampler="euler",
    samplers=FLOW_SAMPLERS,
)
"""FLUX.1."""
