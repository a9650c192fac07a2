"""Pairs of denoising steps with one row per pair: easier to look at than a batch that shares by number."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.pair_rows import PairRows, pair_rows
from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.types import StepBatch, Steps
from seedpo.protocols import Denoiser

__all__ = ["PairRows", "log_probs_of_side", "pair_rows", "step_batch"]


def step_batch(pairs: PairRows) -> StepBatch:
    """The pairs as a batch; both sides of a pair share an x_t if they are equal."""
    count = len(pairs)
    apart = (pairs.chosen_latents != pairs.rejected_latents).flatten(1).any(1).nonzero()[:, 0]
    rows = torch.cat([torch.arange(count), apart])
    rejected_start = torch.arange(count)
    rejected_start[apart] = count + torch.arange(len(apart))
    sides = [pairs.chosen_reference_log_prob, pairs.rejected_reference_log_prob]
    reference = [side for side in sides if side is not None]
    return StepBatch(
        latents=torch.cat([pairs.chosen_latents, pairs.rejected_latents[apart]]),
        timestep=pairs.timestep[rows],
        next_timestep=pairs.next_timestep[rows],
        conditioning=pairs.conditioning[rows],
        negative_conditioning=pairs.negative_conditioning[rows],
        next_latents=torch.cat([pairs.chosen_next_latents, pairs.rejected_next_latents]),
        start=torch.cat([torch.arange(count), rejected_start]),
        chosen=torch.arange(count),
        rejected=count + torch.arange(count),
        reference_log_prob=torch.cat(reference) if reference else None,
    )


def log_probs_of_side(model: Denoiser, sampling: SamplingSettings, pairs: PairRows, side: str) -> Tensor:
    """Log-probabilities of one side's steps, (P,), each x_t predicted by itself."""
    steps = Steps(
        latents=getattr(pairs, f"{side}_latents"),
        timestep=pairs.timestep,
        next_timestep=pairs.next_timestep,
        conditioning=pairs.conditioning,
        negative_conditioning=pairs.negative_conditioning,
        next_latents=getattr(pairs, f"{side}_next_latents"),
        start=torch.arange(len(pairs)),
    )
    return Sampler(model, sampling).log_probs(steps)
