"""Training of the embedded UNet together with its text encoder."""

from __future__ import annotations

import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from seedpo.scenes.drawing import RADIUS
from tools.scenes.autoencoder import PRACTICE_RADIUS, cosine_rate, draw_batch
from tools.scenes.components import PROMPT_LENGTH, build_scheduler, build_text_encoder, build_unet

PROMPT_DROPOUT = 0.1
"""Share of prompts that are replaced by the empty one, for classifier-free guidance."""

POOL_SIZE = 49_152
"""Drawings that are encoded once and then drawn from."""


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Token ids of prompts, padded as Stable Diffusion pads them: (B, PROMPT_LENGTH)."""
    ids: Tensor = tokenizer(
        prompts, padding="max_length", max_length=PROMPT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of the training.

    Attributes:
        radius: sizes that are drawn.
        steps: optimiser steps.
        horizon: steps over which the learning rate would fall to a hundredth.
        peak: largest learning rate.
    """

    radius: Mapping[str, tuple[float, float]]
    steps: int
    horizon: int
    peak: float


PRACTICE = Phase(radius=PRACTICE_RADIUS, steps=3000, horizon=4500, peak=1.5e-3)
"""First on practice drawings, with a high learning rate."""

FINISH = Phase(radius=RADIUS, steps=2200, horizon=2200, peak=1e-3)
"""Then on the world's own drawings, until the learning rate has fallen."""


def encode_pool(
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    *,
    size: int,
    radius: Mapping[str, tuple[float, float]],
    generator: torch.Generator,
    progress: bool,
) -> tuple[Tensor, Tensor]:
    """Latents (N, C, H, W) and token ids (N, L) of fresh drawings."""
    latents, tokens = [], []
    for _ in trange(0, size, 256, desc="encoding drawings", disable=not progress):
        prompts, drawings = draw_batch(256, generator=generator, radius=radius)
        with torch.no_grad():
            latents.append(autoencoder.encode(drawings * 2.0 - 1.0).latent_dist.mean)
        tokens.append(tokenize(tokenizer, prompts))
    return torch.cat(latents) * autoencoder.config.scaling_factor, torch.cat(tokens)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, step: int) -> None:
    """Moves the exponential average of the weights; its horizon grows with the step up to 1000 steps."""
    decay = min(0.999, (1.0 + step) / (10.0 + step))
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)


def train_denoiser(
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    phase: Phase,
    *,
    start: tuple[UNet2DConditionModel, CLIPTextModel] | None = None,
    batch_size: int,
    seed: int,
    progress: bool = True,
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Trains UNet and text encoder on the noise-prediction loss; returns their averaged weights.

    Args:
        autoencoder: the trained autoencoder.
        tokenizer: the world's tokenizer.
        phase: what is drawn and how long.
        start: models to go on from, changed in place; new ones if not given.
        batch_size: latents per step.
        seed: seed of the weights, the drawings, the noise and the time steps.
        progress: whether to show a progress bar.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    scheduler = build_scheduler()
    latents, tokens = encode_pool(
        autoencoder, tokenizer, size=POOL_SIZE, radius=phase.radius, generator=generator, progress=progress
    )
    empty = tokenize(tokenizer, [""])[0]

    if start is None:
        text_encoder = build_text_encoder(tokenizer)
        unet = build_unet(text_encoder.config.hidden_size)
    else:
        unet, text_encoder = start
    unet = unet.train().to(memory_format=torch.channels_last)
    models = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = deepcopy(models).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(models.parameters(), betas=(0.9, 0.99), weight_decay=1e-2)
    bar = trange(phase.steps, desc="denoiser", disable=not progress)
    running = 1.0
    for step in bar:
        optimizer.param_groups[0]["lr"] = cosine_rate(step, phase.horizon, peak=phase.peak, warmup=200)
        rows = torch.randint(len(latents), (batch_size,), generator=generator)
        ids = tokens[rows]
        ids[torch.rand(batch_size, generator=generator) < PROMPT_DROPOUT] = empty
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        timestep = torch.randint(scheduler.config.num_train_timesteps, (batch_size,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timestep).contiguous(memory_format=torch.channels_last)
        prediction = unet(noisy, timestep, text_encoder(ids).last_hidden_state).sample
        loss = (prediction - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(models.parameters(), 1.0)
        optimizer.step()
        update_average(average, models, step=step)
        running += 0.02 * (loss.item() - running)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{running:.4f}")
    return average["unet"], average["text_encoder"]
