"""The losses written out with plain torch and diffusers: a frozen second UNet, and a forward for each thing asked."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.types import ImagePairs
from seedpo.models.policy import PipelinePolicy
from tests.methods.pair_rows import PairRows
from tests.models.tiny import frozen_unet, seeded

Reduction = Literal["sum", "mean"]


def scheduler_of(policy: PipelinePolicy) -> DDIMScheduler:
    scheduler: DDIMScheduler = DDIMScheduler.from_config(policy.pipeline.scheduler.config)
    return scheduler


def reduce(values: Tensor, reduction: Reduction) -> Tensor:
    return values.mean((1, 2, 3)) if reduction == "mean" else values.sum((1, 2, 3))


def noise_draws(pairs: ImagePairs, seed: int) -> tuple[Tensor, Tensor]:
    """The time steps and the noise of a seed: one of each per pair."""
    generator = seeded(seed)
    timestep = torch.randint(1000, (len(pairs),), generator=generator)
    return timestep, torch.randn(pairs.chosen_latents.shape, generator=generator)


def noise_errors(policy: PipelinePolicy, pairs: ImagePairs, *, seed: int, reduction: Reduction) -> dict[str, Tensor]:
    """Squared errors of policy and reference on the chosen and the rejected images, (B,) each."""
    scheduler = scheduler_of(policy)
    timestep, noise = noise_draws(pairs, seed)
    errors = {}
    for network, unet in (("policy", policy.pipeline.unet), ("reference", frozen_unet(pairs.chosen_latents.dtype))):
        for side, latents in (("chosen", pairs.chosen_latents), ("rejected", pairs.rejected_latents)):
            targets = {
                "epsilon": noise,
                "v_prediction": scheduler.get_velocity(latents, noise, timestep),
                "sample": latents,
            }
            prediction = unet(
                scheduler.add_noise(latents, noise, timestep),
                timestep,
                encoder_hidden_states=pairs.conditioning.prompt_embeds,
            ).sample
            target = targets[scheduler.config.prediction_type]
            errors[f"{network} {side}"] = reduce((prediction - target) ** 2, reduction)
    return errors


def noise_dpo_losses(
    policy: PipelinePolicy, pairs: ImagePairs, *, beta: float, seed: int, reduction: Reduction
) -> Tensor:
    """Diffusion-DPO as its official code has it: -log sigma(-beta / 2 (model_diff - ref_diff))."""
    errors = noise_errors(policy, pairs, seed=seed, reduction=reduction)
    model_diff = errors["policy chosen"] - errors["policy rejected"]
    ref_diff = errors["reference chosen"] - errors["reference rejected"]
    return -logsigmoid(-0.5 * beta * (model_diff - ref_diff))


def step_log_prob(
    scheduler: DDIMScheduler,
    unet: Any,
    pairs: PairRows,
    side: Literal["chosen", "rejected"],
    *,
    guidance_scale: float,
    eta: float,
    reduction: Reduction,
) -> Tensor:
    """Log-probability of each x_{t-1} given its x_t, (B,): row by row, two forwards each."""
    latents, next_latents = getattr(pairs, f"{side}_latents"), getattr(pairs, f"{side}_next_latents")
    values = []
    for row in range(len(pairs)):
        time = int(pairs.timestep[row])
        x, following = latents[row : row + 1], next_latents[row : row + 1]
        positive, negative = (
            unet(x, time, encoder_hidden_states=rows.prompt_embeds[row : row + 1]).sample
            for rows in (pairs.conditioning, pairs.negative_conditioning)
        )
        output = negative + guidance_scale * (positive - negative)
        # Without noise, a step of the scheduler leads to the mean; its deviation comes from the variance.
        mean = scheduler.step(output, time, x, eta=eta, variance_noise=torch.zeros_like(x)).prev_sample
        std = eta * scheduler._get_variance(time, int(pairs.next_timestep[row])) ** 0.5
        density = -((following - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * torch.tensor(2 * torch.pi).log()
        values.append(reduce(density, reduction))
    return torch.cat(values)


def step_log_probs(
    policy: PipelinePolicy,
    pairs: PairRows,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    eta: float,
    reduction: Reduction,
) -> dict[str, Tensor]:
    """The four log-probabilities that a pair of steps has, (B,) each."""
    scheduler = scheduler_of(policy)
    scheduler.set_timesteps(num_inference_steps)
    networks = {"policy": policy.pipeline.unet, "reference": frozen_unet(pairs.chosen_latents.dtype)}
    return {
        f"{name} {side}": step_log_prob(
            scheduler, unet, pairs, side, guidance_scale=guidance_scale, eta=eta, reduction=reduction
        )
        for name, unet in networks.items()
        for side in ("chosen", "rejected")
    }


def transition_dpo_losses(log_probs: dict[str, Tensor], *, beta: float, clip_range: float | None) -> Tensor:
    """D3PO's and SPO's loss on ratios, as their official code has it."""
    ratios = [
        torch.exp(log_probs[f"policy {side}"] - log_probs[f"reference {side}"]) for side in ("chosen", "rejected")
    ]
    if clip_range is not None:
        ratios = [ratio.clamp(1 - clip_range, 1 + clip_range) for ratio in ratios]
    return -torch.log(torch.sigmoid(beta * (ratios[0].log() - ratios[1].log())))
