"""Training of the embedded autoencoder."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import trange

from seedpo.scenes.drawing import RADIUS, draw, sample_scenes
from seedpo.scenes.prompts import TRAINING_PROMPTS
from tools.scenes.components import build_autoencoder

PRACTICE_RADIUS = {"small": (4.6, 5.4), "large": (8.2, 9.6)}
"""Sizes of the practice drawings: smaller than the world's, so that details of its objects come easily."""


def draw_batch(
    count: int, *, generator: torch.Generator, radius: Mapping[str, tuple[float, float]] = RADIUS
) -> tuple[list[str], Tensor]:
    """Training prompts, drawn with replacement, and a drawing of each: (B, 3, H, W) in [0, 1]."""
    indices = torch.randint(len(TRAINING_PROMPTS), (count,), generator=generator).tolist()
    prompts = [TRAINING_PROMPTS[index] for index in indices]
    return prompts, draw(sample_scenes(prompts, generator=generator, radius=radius))


def cosine_rate(step: int, steps: int, *, peak: float, warmup: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to a hundredth of the peak."""
    return peak * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def reconstruction_loss(reconstructions: Tensor, images: Tensor) -> Tensor:
    """Absolute and squared error of the pixels and absolute error of their differences, images in [-1, 1]."""
    error = reconstructions - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2.0 * error.square().mean() + edges


def train_autoencoder(*, steps: int, batch_size: int, seed: int, progress: bool = True) -> AutoencoderKL:
    """Trains the autoencoder on fresh practice drawings of the training prompts.

    The weight of the KL term keeps the latents smooth without blurring the images. The scaling factor that is written
    into the configuration gives latents of unit standard deviation.

    Args:
        steps: optimiser steps.
        batch_size: drawings per step.
        seed: seed of the weights, the drawings and the latents' noise.
        progress: whether to show a progress bar.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    autoencoder = build_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(autoencoder.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    bar = trange(steps, desc="autoencoder", disable=not progress)
    for step in bar:
        optimizer.param_groups[0]["lr"] = cosine_rate(step, steps, peak=2e-3, warmup=100)
        _, drawings = draw_batch(batch_size, generator=generator, radius=PRACTICE_RADIUS)
        images = drawings * 2.0 - 1.0
        posterior = autoencoder.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        reconstructions = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        loss = reconstruction_loss(reconstructions, images) + 2e-4 * divergence
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            error = (reconstructions.detach() - images).square().mean().item() / 4.0
            bar.set_postfix(psnr=f"{-10.0 * math.log10(error):.1f} dB")
    autoencoder.eval().requires_grad_(False)
    latents = practice_latents(autoencoder, generator=generator)
    autoencoder.register_to_config(scaling_factor=1.0 / latents.std().item())
    return autoencoder


@torch.no_grad()
def practice_latents(autoencoder: AutoencoderKL, *, generator: torch.Generator) -> Tensor:
    """Unscaled latents (1024, C, h, w) of practice drawings, whose statistics scale the latents."""
    _, drawings = draw_batch(1024, generator=generator, radius=PRACTICE_RADIUS)
    return torch.cat([autoencoder.encode(part * 2.0 - 1.0).latent_dist.mean for part in torch.split(drawings, 128)])
