"""Preferences on the Gaussian density of denoising steps: D3PO (arXiv 2311.13231), SPO (arXiv 2406.04314), SEE of both.

The two methods share this loss; they differ in where their pairs come from. Kept: classifier-free guidance in training
as in sampling, the clip of the ratio to the reference, log-probabilities averaged over the latent dimensions. Left out:
importance weights between roll-out and current policy, which neither paper has. Every x_t runs through a network once,
however many steps and pairs share it, and the reference's log-probabilities are taken from the batch where it carries
them; the official code runs policy and reference once for each side of each pair, with equal gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seedpo.core.objectives import see_loss
from seedpo.core.sampling import step_log_probs
from seedpo.core.transitions import Reduction
from seedpo.core.types import LossOutput, TransitionGroups, TransitionPairs
from seedpo.protocols import Policy


class TransitionDPO:
    """The loss on pairs of denoising steps.

    Args:
        policy_weight: a of :func:`seedpo.core.entropy.entropy_weights`.
        reference_weight: b of the same.
        guidance_scale: classifier-free guidance of the steps, as they were sampled.
        eta: DDIM's eta of the steps, as they were sampled; above 0.
        clip_range: range of the ratio policy/reference; none: no clipping.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
    """

    def __init__(
        self,
        *,
        policy_weight: float,
        reference_weight: float,
        guidance_scale: float,
        eta: float,
        clip_range: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        self.policy_weight = policy_weight
        self.reference_weight = reference_weight
        self.guidance_scale = guidance_scale
        self.eta = eta
        self.clip_range = clip_range
        self.reduction: Reduction = reduction

    def loss(
        self, policy: Policy, batch: TransitionPairs | TransitionGroups, *, generator: torch.Generator
    ) -> LossOutput:
        """Losses of pairs of steps: one forward of the policy, and one of the reference unless the batch carries it.

        Args:
            policy: the trained model and its reference.
            batch: pairs of steps; whether the sides of a pair share x_t is detected pair by pair. In
                :class:`TransitionGroups` steps are shared by number, between pairs too: the losses are those of the
                pairs one by one, and so the gradient of their sum is.
            generator: not used; nothing is drawn here.
        """
        groups = _each_once(batch) if isinstance(batch, TransitionPairs) else batch
        log_prob = self._log_probs(policy, groups)
        reference = groups.reference_log_prob
        if reference is None:
            with policy.reference():
                reference = self._log_probs(policy, groups)
        dimensions = math.prod(groups.next_latents.shape[1:]) if self.reduction == "mean" else 1
        log_prob, reference = log_prob / dimensions, reference / dimensions
        return see_loss(
            log_prob[groups.chosen],
            log_prob[groups.rejected],
            reference[groups.chosen],
            reference[groups.rejected],
            policy_weight=self.policy_weight,
            reference_weight=self.reference_weight,
            clip_range=self.clip_range,
        )

    def _log_probs(self, policy: Policy, groups: TransitionGroups) -> Tensor:
        """Log-probability of every step, summed over the latent dimensions, (N,)."""
        return step_log_probs(
            policy.predict,
            groups.latents,
            groups.timestep,
            groups.previous_timestep,
            groups.conditioning,
            groups.negative_conditioning,
            policy.schedule,
            next_latents=groups.next_latents,
            start=groups.start,
            guidance_scale=self.guidance_scale,
            eta=self.eta,
        )


def _each_once(pairs: TransitionPairs) -> TransitionGroups:
    """Every chosen x_t, followed by each rejected x_t that differs from it; steps from the chosen ones come first."""
    count, device = len(pairs), pairs.chosen_latents.device
    apart = (pairs.chosen_latents != pairs.rejected_latents).flatten(1).any(1)
    every = torch.arange(count, device=device)
    rejected_start = every.clone()
    rejected_start[apart] = count + torch.arange(int(apart.sum()), device=device)
    rows = torch.cat([every, apart.nonzero()[:, 0]])
    reference = None
    if pairs.chosen_reference_log_prob is not None and pairs.rejected_reference_log_prob is not None:
        reference = torch.cat([pairs.chosen_reference_log_prob, pairs.rejected_reference_log_prob])
    return TransitionGroups(
        latents=torch.cat([pairs.chosen_latents, pairs.rejected_latents[apart]]),
        timestep=pairs.timestep[rows],
        previous_timestep=pairs.previous_timestep[rows],
        conditioning=pairs.conditioning[rows],
        negative_conditioning=pairs.negative_conditioning[rows],
        next_latents=torch.cat([pairs.chosen_next_latents, pairs.rejected_next_latents]),
        start=torch.cat([every, rejected_start]),
        chosen=every,
        rejected=count + every,
        reference_log_prob=reference,
    )
