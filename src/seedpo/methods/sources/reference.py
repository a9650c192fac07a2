"""The reference's log-probabilities of a roll-out's steps, computed once and kept with the pairs."""

from __future__ import annotations

from dataclasses import replace

import torch

from seedpo.core.sampling import step_log_probs
from seedpo.methods.settings import SamplingConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rolled import RolledPairs
from seedpo.protocols import Denoiser, Policy


@torch.no_grad()
def with_reference(
    rolled: RolledPairs,
    policy: Denoiser,
    embeddings: PromptEmbeddings,
    *,
    sampling: SamplingConfig,
    rows_at_once: int,
) -> RolledPairs:
    """The same pairs with the reference's log-probability of every step.

    One forward per x_t, however many steps start at it, and however many pairs and passes the steps will serve in. The
    reference never moves, so that these are the numbers that the loss would compute, up to the rounding of a network
    that sees other rows beside them.

    Args:
        rolled: steps and pairs; all of its steps are asked for.
        policy: a model without a reference leaves the pairs as they are, and the loss to ask for itself.
        embeddings: of the policy's prompts.
        sampling: guidance and eta of the roll-out.
        rows_at_once: x_t that the network sees together (twice as many rows with guidance).
    """
    if not isinstance(policy, Policy):
        return rolled
    rows, first, start = rolled.starts()
    conditioning = embeddings.of(rolled.prompts)
    log_prob = torch.zeros(len(start), dtype=torch.float64)
    for begin in range(0, len(rows), rows_at_once):
        part = slice(begin, begin + rows_at_once)
        steps = ((start >= begin) & (start < begin + rows_at_once)).nonzero()[:, 0]
        device = embeddings.device
        with policy.reference():
            found = step_log_probs(
                policy.predict,
                rolled.latents[rows[part]].to(device),
                rolled.timestep[first[part]].to(device),
                rolled.previous_timestep[first[part]].to(device),
                conditioning[rolled.prompt[first[part]]],
                embeddings.negative(len(rows[part])),
                policy.schedule,
                next_latents=rolled.latents[rolled.end[steps]].to(device),
                start=(start[steps] - begin).to(device),
                guidance_scale=sampling.guidance_scale,
                eta=sampling.eta,
            )
        log_prob[steps] = found.to(device="cpu", dtype=torch.float64)
    return replace(rolled, reference_log_prob=log_prob)
