"""Untrained pipelines of the embedded world's classes, seeded, and policies on them. Made once per process.

The UNet is that of the embedded world with fewer channels: most of these tests are about which numbers reach it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from seedpo.core.types import Conditioning
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from tools.scenes.components import (
    build_autoencoder,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
)

PROMPTS = (
    "a small red circle on a white background",
    "a large blue star on a black background",
    "a large green ring on a navy background",
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def _parts() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = build_tokenizer(Path(folder))
        text_encoder = build_text_encoder(tokenizer)
        return {
            "tokenizer": tokenizer,
            "text_encoder": text_encoder,
            "vae": build_autoencoder(),
            "unet": UNet2DConditionModel.from_config(
                build_unet(text_encoder.config.hidden_size).config, block_out_channels=(16, 32), norm_num_groups=8
            ),
        }


def tiny_pipeline(*, dtype: torch.dtype = torch.float32, **scheduler: Any) -> StableDiffusionPipeline:
    """A pipeline with a UNet of its own; the autoencoder, which is never converted, is shared."""
    parts = dict(_parts())
    parts["unet"] = deepcopy(parts["unet"])
    if dtype != torch.float32:
        parts |= {"unet": parts["unet"].to(dtype), "text_encoder": deepcopy(parts["text_encoder"]).to(dtype)}
    pipeline = StableDiffusionPipeline(
        **parts,
        scheduler=DDIMScheduler.from_config(build_scheduler().config, **scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_policy(
    *,
    adapter: Literal["lora", "full"] = "lora",
    lora_rank: int = 4,
    lora: LoraForm | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **scheduler: Any,
) -> PipelinePolicy:
    """A policy that equals its reference. In float64 rounding does not hide what differs."""
    form = LoraForm(rank=lora_rank) if lora is None else lora
    pipeline = tiny_pipeline(dtype=dtype, **scheduler)
    if form.text_encoder:
        pipeline.text_encoder = deepcopy(pipeline.text_encoder)
    policy = PipelinePolicy(pipeline, adapter=adapter, lora=form, seed=seed)
    for parameter in policy.trainable_parameters().values():
        parameter.data = parameter.data.to(dtype)
    return policy


@cache
def frozen_unet(dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """The UNet that every tiny policy starts from; one for all, to be asked only."""
    unet: UNet2DConditionModel = deepcopy(_parts()["unet"])
    return unet.to(dtype).eval().requires_grad_(False)


@torch.no_grad()
def move(policy: PipelinePolicy, *, scale: float = 0.05, seed: int = 5) -> PipelinePolicy:
    """Moves all trained weights by seeded noise, so that the policy is no longer its reference."""
    generator = seeded(seed)
    for parameter in policy.trainable_parameters().values():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return policy


def train_steps(policy: PipelinePolicy, *, steps: int = 2, learning_rate: float = 0.01) -> torch.optim.Optimizer:
    """Steps of AdamW on the size of the prediction."""
    optimizer = torch.optim.AdamW(policy.trainable_parameters().values(), lr=learning_rate)
    for step in range(steps):
        optimizer.zero_grad()
        policy.predict(*network_inputs(policy, seed=step)).square().mean().backward()
        optimizer.step()
    return optimizer


def network_inputs(policy: PipelinePolicy, *, rows: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Conditioning]:
    """Latents, time steps and embedded prompts."""
    conditioning = policy.encode_prompts(PROMPTS[:rows])
    dtype = conditioning.prompt_embeds.dtype
    latents = torch.randn(rows, *policy.latent_shape, generator=seeded(seed)).to(dtype)
    return latents, torch.tensor([1, 401, 951])[:rows], conditioning


def on_reference(policy: PipelinePolicy, *inputs: Any) -> Tensor:
    with policy.reference():
        return policy.predict(*inputs)


@contextmanager
def rows_seen(network: nn.Module) -> Iterator[list[int]]:
    """The number of rows of every call that reaches a network."""
    seen: list[int] = []
    handle = network.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    try:
        yield seen
    finally:
        handle.remove()
