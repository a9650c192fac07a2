"""Preferences among all images of a group: DGPO (arXiv 2510.08425) on the noise-prediction surrogate.

Kept: images drawn without noise in the steps, one time step and one noise for a whole group, advantages in place of
labels, the clip of images that have moved far enough. Its published code clips against a moving average of the policy;
here it is the reference, which is that average with ``reference.kind: ema`` (its variant without guidance). Left out:
several time steps per group and update, times of the noisiest part of the sampler only, and roll-outs of the average.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.core.dgpo import dgpo_loss, group_margin, hold_clipped, is_held
from seedpo.core.draws import PairDraws
from seedpo.core.noise_weights import MIN_SNR_GAMMA, NOISE_WEIGHTS
from seedpo.core.sampling import draw_noise
from seedpo.core.transitions import Reduction, noise_log_prob
from seedpo.core.types import ImageGroups, LossOutput
from seedpo.core.weighting import balanced, suspect_share, temperature_factor, weighed
from seedpo.methods.noising import distance, noised
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy, ReferenceCache


class DGPO:
    """The loss on groups of clean latents.

    Args:
        policy_weight: a of :func:`seedpo.core.entropy.entropy_weights`.
        reference_weight: b of the same.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
        noise_weight: a name in :data:`seedpo.core.noise_weights.NOISE_WEIGHTS`.
        min_snr_gamma: limit of `min-snr`.
        advantage_limit: advantages are held in [-limit, limit]; ``None``: they are not.
        clip_range: of :func:`seedpo.core.dgpo.hold_clipped`; ``None``: no clipping.
        suspect_anchor: kappa; a and b of a group grow with the suspect share of its advantages above 0.
    """

    def __init__(
        self,
        *,
        policy_weight: float,
        reference_weight: float,
        reduction: Reduction = "mean",
        noise_weight: str = "constant",
        min_snr_gamma: float = MIN_SNR_GAMMA,
        advantage_limit: float | None = None,
        clip_range: float | None = None,
        suspect_anchor: float = 0.0,
    ) -> None:
        self.policy_weight = policy_weight
        self.reference_weight = reference_weight
        self.reduction: Reduction = reduction
        self.noise_weight = NOISE_WEIGHTS[noise_weight]
        self.min_snr_gamma = min_snr_gamma
        self.advantage_limit = advantage_limit
        self.clip_range = clip_range
        self.suspect_anchor = suspect_anchor

    def loss(self, policy: Policy, batch: ImageGroups, *, generator: torch.Generator) -> LossOutput:
        """Losses of P groups of G images: one forward of P G rows for the policy, and one for the reference.

        Args:
            policy: the trained model and its reference.
            batch: groups of clean latents with advantages.
            generator: source of one time step and one noise for each group.
        """
        (groups, count), process = batch.advantages.shape, policy.process
        timestep = process.draw_timesteps(groups, generator=generator)
        noise = draw_noise((groups, *batch.latents.shape[2:]), generator=generator)
        rows = noised(
            process,
            batch.latents.flatten(0, 1),
            noise=noise.repeat_interleave(count, 0),
            timestep=timestep.repeat_interleave(count),
            conditioning=batch.conditioning.repeat_interleave(count),
        )
        prediction = rows.prediction(policy)
        with policy.reference():
            reference_prediction = rows.prediction(policy)
        weight = self.noise_weight.weight(*process.error_weights(timestep), self.min_snr_gamma)
        log_prob, reference = (
            weight.to(values)[:, None] * values
            for values in (
                noise_log_prob(some, rows.target, reduction=self.reduction).view(groups, count)
                for some in (prediction, reference_prediction)
            )
        )
        advantages = self._advantages(batch).to(log_prob)
        metrics = {}
        if self.clip_range is not None:
            held = is_held(log_prob, reference, advantages, clip_range=self.clip_range)
            metrics["clipped"] = held.to(log_prob).mean(1)
            log_prob = hold_clipped(log_prob, reference, advantages, clip_range=self.clip_range)
        suspect = None if batch.suspect is None else suspect_share(advantages, batch.suspect)
        factor = temperature_factor(suspect, self.suspect_anchor)
        margin = factor * group_margin(
            log_prob,
            reference,
            advantages,
            policy_weight=self.policy_weight,
            reference_weight=self.reference_weight,
        )
        return LossOutput(
            losses=dgpo_loss(margin, reference_weight=self.reference_weight * factor),
            metrics={
                **_metrics(margin.detach(), log_prob.detach() - reference, advantages),
                **metrics,
                "distance": distance(prediction, reference_prediction).view(groups, count).mean(1),
            },
        )

    def _advantages(self, batch: ImageGroups) -> Tensor:
        """Those of the batch, weighed and limited, (P, G); weighed ones are made to add up to 0 again."""
        if batch.loss_weight is None:
            return limited(batch.advantages, self.advantage_limit)
        return balanced(limited(weighed(batch.advantages, batch.loss_weight), self.advantage_limit))


def limited(advantages: Tensor, limit: float | None) -> Tensor:
    """Advantages in [-limit, limit]; all as they are without one."""
    return advantages if limit is None else advantages.clamp(-limit, limit)


def _metrics(margin: Tensor, log_ratio: Tensor, advantages: Tensor) -> dict[str, Tensor]:
    """What tells whether a run is learning, one value per group, (P,)."""
    return {
        "rewards/margins": margin,
        "rewards/accuracies": (margin > 0).to(margin),
        "gradient_factor": torch.sigmoid(-margin),
        "log_ratio/best": log_ratio.gather(1, advantages.argmax(1, keepdim=True))[:, 0],
        "log_ratio/worst": log_ratio.gather(1, advantages.argmin(1, keepdim=True))[:, 0],
    }


def group_objective(
    config: MethodConfig, *, draws: PairDraws | None = None, cache: ReferenceCache | None = None
) -> DGPO:
    """The objective of a run; nothing is drawn or cached for fresh images."""
    policy_weight, reference_weight = config.weights
    return DGPO(
        policy_weight=policy_weight,
        reference_weight=reference_weight,
        reduction=config.reduction,
        noise_weight=config.noise_weight,
        min_snr_gamma=config.min_snr_gamma or MIN_SNR_GAMMA,
        advantage_limit=config.objective.advantage_limit,
        clip_range=config.objective.error_clip,
        suspect_anchor=config.weighting.suspect_anchor,
    )
