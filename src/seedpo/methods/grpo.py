"""Policy gradients on the denoising steps of groups of images: Flow-GRPO (arXiv 2505.05470), DanceGRPO (2505.07818).

Kept: advantages from the rewards of a group, one for all steps of an image; the clipped ratio of the present policy to
the one that drew the step, of log-probabilities averaged over the entries of the latents; classifier-free guidance in
training as in sampling; the KL to the reference in closed form; steps of which only some are random and trained
(MixGRPO, arXiv 2507.21802). Left out: advantages pooled over processes, statistics of a prompt over roll-outs, and the
published code's stop of the gradient through the negative prompt. The KL is the paper's; the published code leaves out
the length of the step (about one over their number), so that its weight of 0.04 for ten steps is one of 0.004 here.
"""

from __future__ import annotations

import math

import torch

from seedpo.core.draws import PairDraws
from seedpo.core.policy_gradient import clipped_policy_loss, is_clipped
from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.transitions import Reduction, gaussian_kl, gaussian_log_prob, scaled_square, squared_distance
from seedpo.core.types import LossOutput, StepGroups
from seedpo.core.weighting import temperature_factor, weighed
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy, ReferenceCache


class GRPO:
    """The loss on denoising steps with advantages.

    Args:
        kl_weight: beta of the KL term; 0: the reference is not computed.
        sampling: guidance and eta of the steps, as they were sampled.
        clip_range: range of the ratio of the policy to the one that drew the steps; ``None``: no clipping.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``, of log-probabilities and KL.
        advantage_limit: advantages are held in [-limit, limit]; ``None``: they are not.
        square: whether -|x' - mean|^2 stands for the log-probability, as in the published code of CPS.
        suspect_anchor: kappa: the KL of steps of suspect images weighs beta (1 + kappa).
    """

    def __init__(
        self,
        *,
        kl_weight: float,
        sampling: SamplingSettings,
        clip_range: float | None = None,
        reduction: Reduction = "mean",
        advantage_limit: float | None = None,
        square: bool = False,
        suspect_anchor: float = 0.0,
    ) -> None:
        self.kl_weight = kl_weight
        self.sampling = sampling
        self.clip_range = clip_range
        self.reduction: Reduction = reduction
        self.advantage_limit = advantage_limit
        self.square = square
        self.suspect_anchor = suspect_anchor

    def loss(self, policy: Policy, batch: StepGroups, *, generator: torch.Generator) -> LossOutput:
        """Losses of steps: one forward of the policy, and one of the reference if the KL counts.

        Args:
            policy: the trained model and its reference.
            batch: steps with advantages, all of which have a density.
            generator: not used; nothing is drawn here.
        """
        sampler = Sampler(policy, self.sampling)
        step = sampler.gaussians(batch)
        log_prob, rollout = gaussian_log_prob(batch.next_latents, step.mean, step.std), batch.rollout_log_prob
        entries = math.prod(batch.next_latents.shape[1:])
        if self.square:
            log_prob, rollout = (scaled_square(values, step.std, entries) for values in (log_prob, rollout))
        if self.reduction == "mean":
            log_prob, rollout = log_prob / entries, rollout / entries
        advantage = weighed(batch.advantage.to(log_prob), batch.loss_weight)
        if self.advantage_limit is not None:
            advantage = advantage.clamp(-self.advantage_limit, self.advantage_limit)
        losses = clipped_policy_loss(log_prob, rollout, advantage, clip_range=self.clip_range)
        log_ratio = (log_prob - rollout).detach()
        metrics = {
            "policy_loss": losses.detach(),
            "log_ratio": log_ratio,
            "ratio": log_ratio.exp(),
            "clipped": is_clipped(log_ratio, advantage, clip_range=self.clip_range).to(log_ratio),
            "advantage_abs": advantage.abs(),
        }
        if self.kl_weight:
            with policy.reference():
                reference = sampler.gaussians(batch)
            kl = gaussian_kl(step, reference, reduction=self.reduction)
            losses = losses + self.kl_weight * temperature_factor(batch.suspect, self.suspect_anchor) * kl
            metrics |= {"kl": kl.detach(), "distance": squared_distance(step.mean, reference.mean).detach()}
        return LossOutput(losses=losses, metrics=metrics, spreads=("ratio",))


def group_policy_objective(
    config: MethodConfig, *, draws: PairDraws | None = None, cache: ReferenceCache | None = None
) -> GRPO:
    """The objective of a run; nothing is drawn or cached for steps."""
    return GRPO(
        kl_weight=config.beta,
        sampling=config.sampling,
        clip_range=config.clip_range,
        reduction=config.reduction,
        advantage_limit=config.objective.advantage_limit,
        square=config.fidelity.cps_square,
        suspect_anchor=config.weighting.suspect_anchor,
    )
