"""Pairs with seeded latents."""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.core.types import ImagePairs
from seedpo.models.policy import PipelinePolicy
from tests.methods.pair_rows import PairRows
from tests.models.tiny import PROMPTS, seeded

STEPS = 10
"""Denoising steps of the sampler that the transitions are of."""


def latents_of(policy: PipelinePolicy, rows: int, seed: int) -> Tensor:
    dtype = next(policy.pipeline.unet.parameters()).dtype
    return torch.randn(rows, *policy.latent_shape, generator=seeded(seed)).to(dtype)


def image_pairs(policy: PipelinePolicy, rows: int = 3) -> ImagePairs:
    return ImagePairs(
        chosen_latents=latents_of(policy, rows, 1),
        rejected_latents=latents_of(policy, rows, 2),
        conditioning=policy.encode_prompts(PROMPTS[:rows]),
    )


def transition_pairs(policy: PipelinePolicy, *, shared: tuple[bool, ...] = (True, True, True)) -> PairRows:
    """One row per entry of ``shared``: whether both steps of the pair start at the same x_t.

    A step of a sampler leads near to where it started; ours leads a few standard deviations away.
    """
    rows = len(shared)
    timesteps, previous = policy.process.timesteps(STEPS)
    visited = torch.tensor([1, 4, 8])[:rows]
    chosen, rejected = latents_of(policy, rows, 1), latents_of(policy, rows, 2)
    rejected[torch.tensor(shared)] = chosen[torch.tensor(shared)]
    return PairRows(
        timestep=timesteps[visited],
        next_timestep=previous[visited],
        chosen_latents=chosen,
        rejected_latents=rejected,
        chosen_next_latents=0.9 * chosen + 0.1 * latents_of(policy, rows, 3),
        rejected_next_latents=0.9 * rejected + 0.1 * latents_of(policy, rows, 4),
        conditioning=policy.encode_prompts(PROMPTS[:rows]),
        negative_conditioning=policy.encode_prompts([""] * rows),
    )
