"""Training of the embedded UNet together with its text encoder."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import trange
from transformers import CLIPTextModel, CLIPTokenizer

from seedpo.scenes.building.autoencoder import cosine_rate, draw_batch
from seedpo.scenes.building.components import PROMPT_LENGTH, build_scheduler, build_text_encoder, build_unet

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


def encode_pool(
    autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer, *, size: int, generator: torch.Generator, progress: bool
) -> tuple[Tensor, Tensor]:
    """Latents (N, C, H, W) and token ids (N, L) of fresh drawings."""
    latents, tokens = [], []
    for _ in trange(0, size, 256, desc="encoding drawings", disable=not progress):
        prompts, drawings = draw_batch(256, generator=generator)
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
    *,
    steps: int,
    batch_size: int,
    seed: int,
    on_snapshot: Callable[[UNet2DConditionModel, CLIPTextModel], None] | None = None,
    snapshot_every: int = 500,
    progress: bool = True,
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Trains UNet and text encoder on the noise-prediction loss; returns their averaged weights.

    Args:
        autoencoder: the trained autoencoder.
        tokenizer: the world's tokenizer.
        steps: optimiser steps.
        batch_size: latents per step.
        seed: seed of the weights, the drawings, the noise and the time steps.
        on_snapshot: called with the averaged models every ``snapshot_every`` steps.
        snapshot_every: steps between snapshots.
        progress: whether to show a progress bar.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    scheduler = build_scheduler()
    latents, tokens = encode_pool(autoencoder, tokenizer, size=POOL_SIZE, generator=generator, progress=progress)
    empty = tokenize(tokenizer, [""])[0]

    text_encoder = build_text_encoder(tokenizer)
    unet = build_unet(text_encoder.config.hidden_size).to(memory_format=torch.channels_last)
    models = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = deepcopy(models).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(models.parameters(), betas=(0.9, 0.99), weight_decay=1e-2)
    bar = trange(steps, desc="denoiser", disable=not progress)
    running = 1.0
    for step in bar:
        optimizer.param_groups[0]["lr"] = cosine_rate(step, steps, peak=1.5e-3, warmup=200)
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
        if on_snapshot is not None and (step + 1) % snapshot_every == 0:
            on_snapshot(average["unet"], average["text_encoder"])
    return average["unet"], average["text_encoder"]
