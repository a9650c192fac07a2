"""Pairs of denoising steps with one row per pair, as the published code holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seedpo.core.types import StepBatch, TensorRows


@dataclass(frozen=True, kw_only=True)
class PairRows(TensorRows):
    """P pairs; both sides of a pair have one time step and one prompt."""

    timestep: Tensor
    next_timestep: Tensor
    chosen_latents: Tensor
    rejected_latents: Tensor
    chosen_next_latents: Tensor
    rejected_next_latents: Tensor
    conditioning: Any
    negative_conditioning: Any
    chosen_reference_log_prob: Tensor | None = None
    rejected_reference_log_prob: Tensor | None = None


def pair_rows(batch: StepBatch) -> PairRows:
    """Every pair of a batch with all that belongs to it."""
    chosen, rejected, reference = batch.chosen, batch.rejected, batch.reference_log_prob
    first, other = batch.start[chosen], batch.start[rejected]
    assert torch.equal(batch.timestep[first], batch.timestep[other])
    return PairRows(
        timestep=batch.timestep[first],
        next_timestep=batch.next_timestep[first],
        chosen_latents=batch.latents[first],
        rejected_latents=batch.latents[other],
        chosen_next_latents=batch.next_latents[chosen],
        rejected_next_latents=batch.next_latents[rejected],
        conditioning=batch.conditioning[first],
        negative_conditioning=batch.negative_conditioning[first],
        chosen_reference_log_prob=None if reference is None else reference[chosen],
        rejected_reference_log_prob=None if reference is None else reference[rejected],
    )
