"""Preferences on the Gaussian density of denoising steps: D3PO (arXiv 2311.13231), SPO (arXiv 2406.04314), SEE of both.

The two methods share this loss; they differ in where their pairs come from. Kept: classifier-free guidance in training
as in sampling, the clip of the ratio to the reference, log-probabilities averaged over the latent dimensions. Left out:
importance weights between roll-out and current policy, which neither paper has. Where the two sides of a pair share
x_t, policy and reference run once for both; the official code runs each twice, with equal gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.core.objectives import see_loss
from seedpo.core.sampling import guided_transition
from seedpo.core.transitions import Reduction, Transition, gaussian_log_prob, log_prob_per_dim
from seedpo.core.types import LossOutput, TransitionPairs
from seedpo.protocols import Policy

_LOG_PROB = {"sum": gaussian_log_prob, "mean": log_prob_per_dim}


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

    def loss(self, policy: Policy, batch: TransitionPairs, *, generator: torch.Generator) -> LossOutput:
        """Losses of pairs of steps, with one forward for the policy and one for the reference.

        Args:
            policy: the trained model and its reference.
            batch: B pairs of steps; whether a pair shares x_t is detected row by row.
            generator: not used; nothing is drawn here.
        """
        apart = (batch.chosen_latents != batch.rejected_latents).flatten(1).any(1)
        steps = self._steps(policy, batch, apart)
        with policy.reference():
            reference_steps = self._steps(policy, batch, apart)
        chosen, rejected = self._log_probs(steps, batch, apart)
        chosen_reference, rejected_reference = self._log_probs(reference_steps, batch, apart)
        return see_loss(
            chosen,
            rejected,
            chosen_reference,
            rejected_reference,
            policy_weight=self.policy_weight,
            reference_weight=self.reference_weight,
            clip_range=self.clip_range,
        )

    def _steps(self, policy: Policy, batch: TransitionPairs, apart: Tensor) -> Transition:
        """The steps from every chosen x_t, followed by those from each rejected x_t that differs from it."""
        rows = torch.cat([torch.arange(len(batch), device=apart.device), apart.nonzero()[:, 0]])
        return guided_transition(
            policy.predict,
            torch.cat([batch.chosen_latents, batch.rejected_latents[apart]]),
            batch.timestep[rows],
            batch.previous_timestep[rows],
            batch.conditioning[rows],
            batch.negative_conditioning[rows],
            policy.schedule,
            guidance_scale=self.guidance_scale,
            eta=self.eta,
        )

    def _log_probs(self, steps: Transition, batch: TransitionPairs, apart: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the chosen and of the rejected x_{t-1}, (B,) each."""
        log_prob = _LOG_PROB[self.reduction]
        count = len(batch)
        source = torch.arange(count, device=apart.device)
        source[apart] = count + torch.arange(int(apart.sum()), device=apart.device)
        chosen, rejected = steps[:count], steps[source]
        return (
            log_prob(batch.chosen_next_latents, chosen.mean, chosen.std),
            log_prob(batch.rejected_next_latents, rejected.mean, rejected.std),
        )
