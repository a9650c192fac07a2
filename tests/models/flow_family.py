"""A family of another kind: packed latents, a transformer, flow matching. What it takes is this file and one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection

from seedpo.core.types import Conditioning
from seedpo.models.families import Family, PromptForm, decode_latents, encode_pixels
from tests.methods.flow import flow_process
from tests.models.published import pipeline_of, text_encoder


@dataclass(frozen=True, kw_only=True)
class Prompts(Conditioning):
    states: Tensor
    pooled: Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens(Conditioning):
    ids: Tensor


def tokenize(pipeline: Any, prompts: Sequence[str], form: PromptForm) -> Tokens:
    tokenizer = pipeline.tokenizer
    length = tokenizer.model_max_length
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return Tokens(ids=tokens.input_ids)


def embed_tokens(encoders: Sequence[Any], tokens: Tokens) -> Prompts:
    (encoder,) = encoders
    output = encoder(tokens.ids.to(encoder.device))
    return Prompts(states=output.last_hidden_state.float(), pooled=output.text_embeds.float())


def packed(latents: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h w, C)."""
    return latents.flatten(2).transpose(1, 2)


def unpacked(latents: Tensor) -> Tensor:
    side = round(latents.shape[1] ** 0.5)
    return latents.transpose(1, 2).unflatten(2, (side, side))


def predict(network: nn.Module, latents: Tensor, time: Tensor, prompts: Prompts, dtype: torch.dtype) -> Tensor:
    velocity: Tensor = network(
        unpacked(latents).to(dtype),
        encoder_hidden_states=prompts.states.to(dtype),
        pooled_projections=prompts.pooled.to(dtype),
        timestep=1000 * time,
        return_dict=False,
    )[0]
    return packed(velocity)


def packed_latents(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = encode_pixels(vae, pixels)
    return packed(mean), packed(std)


FAMILY = Family(
    pipeline=StableDiffusion3Pipeline,
    network="transformer",
    text_parts=("text_encoder",),
    process=lambda pipeline, size: flow_process(),
    image_size=lambda pipeline, resolution: (resolution or 16, resolution or 16),
    latent_shape=lambda pipeline, size: (size[0] * size[1] // pipeline.vae_scale_factor**2, 4),
    conditioning=Prompts,
    tokens=Tokens,
    tokenize=tokenize,
    embed_tokens=embed_tokens,
    predict=predict,
    encode=packed_latents,
    decode=lambda vae, latents: decode_latents(vae, unpacked(latents)),
    adapter_layers={"attention": ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj")},
)


def flow_pipeline() -> Any:
    parts = pipeline_of("sd15").components
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        encoder = text_encoder(parts["tokenizer"], CLIPTextModelWithProjection, width=32, hidden_act="gelu")
        transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=8,
        )
    parts["vae"].register_to_config(shift_factor=0.1)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=parts["vae"],
        text_encoder=encoder,
        tokenizer=parts["tokenizer"],
        **dict.fromkeys(("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")),
    )
