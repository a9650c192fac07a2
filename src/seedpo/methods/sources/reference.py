"""The reference's log-probabilities of a roll-out's steps, computed once and kept with the pairs."""

from __future__ import annotations

from dataclasses import replace

import torch

from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.types import Steps
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rolled import RolledPairs, first_of_each
from seedpo.protocols import Denoiser, Policy


@torch.no_grad()
def with_reference(
    rolled: RolledPairs,
    policy: Denoiser,
    embeddings: PromptEmbeddings,
    *,
    sampling: SamplingSettings,
    rows_at_once: int,
) -> RolledPairs:
    """The same pairs with the reference's log-probability of every step.

    One forward per x_t, however many steps start from it, and however many pairs and passes the steps will serve in.
    The reference never moves, so these are the numbers that the loss would compute, up to the rounding of a network
    that sees other rows beside them.

    Args:
        rolled: steps and pairs; all of its steps have a density.
        policy: a model without a reference leaves the pairs as they are, and the loss to ask for itself.
        embeddings: of the policy's prompts.
        sampling: guidance and eta of the roll-out.
        rows_at_once: x_t that the network sees together (twice as many rows with guidance).
    """
    if not isinstance(policy, Policy):
        return rolled
    first, start = first_of_each(rolled.start)
    conditioning, device = embeddings.of(rolled.prompts), embeddings.device
    log_prob = torch.zeros(len(start), dtype=torch.float64)
    for begin in range(0, len(first), rows_at_once):
        some = first[begin : begin + rows_at_once]
        numbers = ((start >= begin) & (start < begin + rows_at_once)).nonzero()[:, 0]
        steps = Steps(
            latents=rolled.latents[rolled.start[some]].to(device),
            timestep=rolled.timestep[some].to(device),
            next_timestep=rolled.next_timestep[some].to(device),
            conditioning=conditioning[rolled.prompt[some]],
            negative_conditioning=embeddings.negative(len(some)),
            next_latents=rolled.latents[rolled.end[numbers]].to(device),
            start=(start[numbers] - begin).to(device),
        )
        with policy.reference():
            found = Sampler(policy, sampling).log_probs(steps)
        log_prob[numbers] = found.to(device="cpu", dtype=torch.float64)
    return replace(rolled, reference_log_prob=log_prob)
