"""Stable Diffusion 3 and 3.5: a joint transformer on latents (C, H, W), two CLIPs and perhaps a T5, flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.core.types import Conditioning
from seedpo.models.families import Family, PromptForm, Size, widened
from seedpo.models.pipelines.parts import (
    CLIP_ATTENTION,
    JOINT_ATTENTION,
    few_step_name,
    flow_process,
    image_size,
    latent_shape,
    linear_mu,
    t5_states,
    token_ids,
)
from seedpo.models.samplers import FLOW_SAMPLERS


@dataclass(frozen=True, kw_only=True)
class Sd3Conditioning(Conditioning):
    """Embedded prompts.

    Attributes:
        prompt_embeds: states of the CLIPs, then those of the T5 or as many zeros, (B, L, D).
        pooled_prompt_embeds: of both CLIPs, (B, P).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor


@dataclass(frozen=True, kw_only=True)
class Sd3Tokens(Conditioning):
    """Prompts as the tokenizers read them.

    Attributes:
        ids: for the first CLIP, (B, L) int64.
        ids_2: for the second, (B, L) int64.
        ids_3: for the T5, (B, L) int64; ``None`` where there is none.
        zeros: what takes the place of its states, (B, L, D); ``None`` where there is one.
    """

    ids: Tensor
    ids_2: Tensor
    ids_3: Tensor | None = None
    zeros: Tensor | None = None


def _process(pipeline: Any, size: Size) -> FlowProcess:
    cell = pipeline.vae_scale_factor * pipeline.patch_size
    tokens = (size[0] // cell) * (size[1] // cell)
    return flow_process(pipeline, mu=lambda count: linear_mu(pipeline.scheduler, tokens, max_shift=1.16))


def _image_size(pipeline: Any, resolution: int | Size | None) -> Size:
    factor = pipeline.vae_scale_factor
    return image_size(resolution, usual=pipeline.default_sample_size * factor, multiple=factor * pipeline.patch_size)


def _tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> Sd3Tokens:
    """Both CLIPs read as many tokens as the first one's tokenizer says, as in the pipeline."""
    assert form.length is not None
    clip = pipeline.tokenizer_max_length
    has_t5 = pipeline.text_encoder_3 is not None
    width = pipeline.transformer.config.joint_attention_dim
    return Sd3Tokens(
        ids=token_ids(pipeline.tokenizer, prompts, clip),
        ids_2=token_ids(pipeline.tokenizer_2, prompts, clip),
        ids_3=token_ids(pipeline.tokenizer_3, prompts, form.length) if has_t5 else None,
        zeros=None if has_t5 else torch.zeros(len(prompts), form.length, width),
    )


def _embed_tokens(encoders: Sequence[Any], tokens: Sd3Tokens) -> Sd3Conditioning:
    """The last but one states of the CLIPs side by side, the T5's after them, and the CLIPs' pooled embeddings."""
    first, second, third = encoders
    outputs = [
        encoder(ids.to(encoder.device), output_hidden_states=True)
        for encoder, ids in ((first, tokens.ids), (second, tokens.ids_2))
    ]
    clip = torch.cat([widened(output.hidden_states[-2]) for output in outputs], -1)
    if third is None:
        assert tokens.zeros is not None
        text = tokens.zeros.to(clip)
    else:
        assert tokens.ids_3 is not None
        text = t5_states(third, tokens.ids_3)
    return Sd3Conditioning(
        prompt_embeds=torch.cat([F.pad(clip, (0, text.shape[-1] - clip.shape[-1])), text], -2),
        pooled_prompt_embeds=torch.cat([widened(output.text_embeds) for output in outputs], -1),
    )


def _predict(
    transformer: nn.Module, latents: Tensor, sigma: Tensor, conditioning: Sd3Conditioning, dtype: torch.dtype
) -> Tensor:
    velocity: Tensor = transformer(
        hidden_states=latents.to(dtype),
        timestep=1000 * sigma,
        encoder_hidden_states=conditioning.prompt_embeds.to(dtype),
        pooled_projections=conditioning.pooled_prompt_embeds.to(dtype),
        return_dict=False,
    )[0]
    return velocity


_BLOCK = "transformer_blocks.{}"

_ORIGINAL_LAYERS = {
    "joint_blocks.{}.x_block.attn.qkv": (f"{_BLOCK}.attn.to_q", f"{_BLOCK}.attn.to_k", f"{_BLOCK}.attn.to_v"),
    "joint_blocks.{}.x_block.attn.proj": (f"{_BLOCK}.attn.to_out.0",),
    "joint_blocks.{}.x_block.attn2.qkv": (f"{_BLOCK}.attn2.to_q", f"{_BLOCK}.attn2.to_k", f"{_BLOCK}.attn2.to_v"),
    "joint_blocks.{}.x_block.attn2.proj": (f"{_BLOCK}.attn2.to_out.0",),
    "joint_blocks.{}.x_block.mlp.fc1": (f"{_BLOCK}.ff.net.0.proj",),
    "joint_blocks.{}.x_block.mlp.fc2": (f"{_BLOCK}.ff.net.2",),
    "joint_blocks.{}.x_block.adaLN_modulation.1": (f"{_BLOCK}.norm1.linear",),
    "joint_blocks.{}.context_block.attn.qkv": tuple(f"{_BLOCK}.attn.add_{name}_proj" for name in "qkv"),
    "joint_blocks.{}.context_block.attn.proj": (f"{_BLOCK}.attn.to_add_out",),
    "joint_blocks.{}.context_block.mlp.fc1": (f"{_BLOCK}.ff_context.net.0.proj",),
    "joint_blocks.{}.context_block.mlp.fc2": (f"{_BLOCK}.ff_context.net.2",),
    "joint_blocks.{}.context_block.adaLN_modulation.1": (f"{_BLOCK}.norm1_context.linear",),
    "x_embedder.proj": ("pos_embed.proj",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
"""Layers of Stability AI's code, after which sd-scripts and ComfyUI name theirs."""

STABLE_DIFFUSION_3 = Family(
    pipeline=StableDiffusion3Pipeline,
    network="transformer",
    text_parts=("text_encoder", "text_encoder_2", "text_encoder_3"),
    optional_parts=("text_encoder_3",),
    process=_process,
    image_size=_image_size,
    latent_shape=latent_shape,
    conditioning=Sd3Conditioning,
    tokens=Sd3Tokens,
    tokenize=_tokenize,
    embed_tokens=_embed_tokens,
    predict=_predict,
    distilled=few_step_name,
    max_sequence_length=256,
    longest_text=512,
    adapter_layers={
        "attention": JOINT_ATTENTION,
        "mlp": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
    },
    original_layers=_ORIGINAL_LAYERS,
    text_layers=dict.fromkeys(("text_encoder", "text_encoder_2"), CLIP_ATTENTION),
    own_sampler="euler",
    samplers=FLOW_SAMPLERS,
)
"""Stable Diffusion 3 and 3.5."""
