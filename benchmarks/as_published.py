"""The same losses in the structure of the reference implementations, written anew.

Each side of a pair has its own call of the policy and its own of a second UNet; log-probabilities are means in float32;
images and prompts are encoded in every step. What makes no difference to the cost is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from benchmarks.pair_rows import PairRows
from seedpo.core.processes import DiffusionProcess


@dataclass(frozen=True, kw_only=True)
class TransitionSettings:
    """What the loss on transitions depends on."""

    schedule: DiffusionProcess
    beta: float
    clip_range: float
    guidance_scale: float
    eta: float


def transition_losses(policy: Any, reference: Any, pairs: PairRows, settings: TransitionSettings) -> Tensor:
    """D3PO's and SPO's losses, (B,), with four calls of 2B rows."""
    ratios = []
    for side in ("chosen", "rejected"):
        latents, following = getattr(pairs, f"{side}_latents"), getattr(pairs, f"{side}_next_latents")
        log_prob = _log_prob(policy, latents, following, pairs, settings)
        with torch.no_grad():
            reference_log_prob = _log_prob(reference, latents, following, pairs, settings)
        ratio = torch.exp(log_prob - reference_log_prob)
        ratios.append(ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range))
    return -torch.log(torch.sigmoid(settings.beta * ratios[0].log() - settings.beta * ratios[1].log()))


def _log_prob(unet: Any, latents: Tensor, following: Tensor, pairs: PairRows, settings: TransitionSettings) -> Tensor:
    embeds = torch.cat([pairs.negative_conditioning.prompt_embeds, pairs.conditioning.prompt_embeds])
    added: dict[str, Tensor] = {}
    if pairs.conditioning.pooled_prompt_embeds is not None and pairs.conditioning.time_ids is not None:
        negative = pairs.negative_conditioning
        assert negative.pooled_prompt_embeds is not None
        assert negative.time_ids is not None
        added["text_embeds"] = torch.cat([negative.pooled_prompt_embeds, pairs.conditioning.pooled_prompt_embeds])
        added["time_ids"] = torch.cat([negative.time_ids, pairs.conditioning.time_ids])
    output = unet(
        torch.cat([latents] * 2),
        torch.cat([pairs.timestep] * 2),
        encoder_hidden_states=embeds,
        added_cond_kwargs=added,
    ).sample
    without, given = output.chunk(2)
    noise = without + settings.guidance_scale * (given - without)
    level = settings.schedule.alpha_cumprod(pairs.timestep).view(-1, 1, 1, 1)
    previous = settings.schedule.alpha_cumprod(pairs.next_timestep).view(-1, 1, 1, 1)
    clean = (latents - (1 - level) ** 0.5 * noise) / level**0.5
    std = settings.eta * ((1 - previous) / (1 - level) * (1 - level / previous)) ** 0.5
    mean = previous**0.5 * clean + (1 - previous - std**2) ** 0.5 * noise
    density = -((following - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))
    return density.mean((1, 2, 3))


def noise_losses(
    pipeline: StableDiffusionPipeline,
    reference_unet: Any,
    chosen: Tensor,
    rejected: Tensor,
    prompts: Sequence[str],
    *,
    timestep: Tensor,
    noise: Tensor,
    beta: float,
) -> Tensor:
    """Diffusion-DPO's losses, (B,), with a second UNet as the reference: everything is encoded anew."""
    unet, vae = pipeline.unet, pipeline.vae
    with torch.no_grad():
        pixels = torch.cat([chosen, rejected]) * 2 - 1
        latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
        ids = pipeline.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        embeds = pipeline.text_encoder(ids).last_hidden_state.repeat(2, 1, 1)
    timestep, noise = timestep.repeat(2), noise.repeat(2, 1, 1, 1)
    noisy = pipeline.scheduler.add_noise(latents, noise, timestep)
    errors = (unet(noisy, timestep, encoder_hidden_states=embeds).sample - noise).pow(2).mean((1, 2, 3))
    with torch.no_grad():
        reference = (
            (reference_unet(noisy, timestep, encoder_hidden_states=embeds).sample - noise).pow(2).mean((1, 2, 3))
        )
    difference = errors.chunk(2)[0] - errors.chunk(2)[1]
    reference_difference = reference.chunk(2)[0] - reference.chunk(2)[1]
    return -torch.nn.functional.logsigmoid(-0.5 * beta * (difference - reference_difference))


def velocity_losses(
    network: Any,
    reference: Any,
    latents: Tensor,
    embeds: Tensor,
    pooled: Tensor,
    *,
    sigma: Tensor,
    noise: Tensor,
    beta: float,
    joined: bool,
    as_reference: Callable[[], AbstractContextManager[None]],
) -> Tensor:
    """Flow-DPO's losses, (B,), of an SD3 transformer: four forwards a pair.

    Args:
        network: the policy.
        reference: the reference, inside ``as_reference``.
        latents: of the chosen images, then of the others, (2B, C, H, W).
        embeds: embedded prompts, (B, L, D).
        pooled: their pooled embeddings, (B, P).
        sigma: noise level of each pair, (B,).
        noise: of each pair, (B, C, H, W).
        beta: of the loss on mean squared errors.
        joined: whether the images of a pair share a call.
        as_reference: makes the network the reference, where both are one.
    """
    level, noises = sigma.repeat(2)[:, None, None, None], noise.repeat(2, 1, 1, 1)
    noisy, target = (1 - level) * latents + level * noises, noises - latents

    def errors(network: Any) -> Tensor:
        parts = [slice(None)] if joined else [slice(0, len(sigma)), slice(len(sigma), None)]
        given = (noisy, embeds.repeat(2, 1, 1), pooled.repeat(2, 1), 1000 * sigma.repeat(2))
        velocity = torch.cat([network(*(value[part] for value in given), return_dict=False)[0] for part in parts])
        return (velocity - target).pow(2).mean((1, 2, 3))

    policy_errors = errors(network)
    with torch.no_grad(), as_reference():
        reference_errors = errors(reference)
    chosen, rejected = (policy_errors - reference_errors).chunk(2)
    return -torch.nn.functional.logsigmoid(-0.5 * beta * (chosen - rejected))
