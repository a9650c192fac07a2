"""Good and bad images as two directions from the policy that drew them: DiffusionNFT (arXiv 2509.16117).

Kept: the implicit policies v+ and v- on both sides of the old policy, which is the reference; clean images as what is
compared, each error divided by its own size; the share of good in an image from its advantage; images drawn without
guidance and without noise in the steps. For networks that predict noise, clean images are linear in the prediction
just so. Left out: all time steps of the sampler for each image and update (one is drawn), the second-order sampler. The
published code averages the old policy once per roll-out; here it follows after every update.
"""

from __future__ import annotations

import torch

from seedpo.core.draws import PairDraws
from seedpo.core.nft import nft_errors, nft_loss
from seedpo.core.sampling import draw_noise
from seedpo.core.transitions import Reduction
from seedpo.core.types import ImageGroups, LossOutput
from seedpo.core.weighting import weighed
from seedpo.methods.noising import distance, noised
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy, ReferenceCache


class DiffusionNFT:
    """The loss on groups of clean latents.

    Args:
        beta: how far the implicit policies go from the old one, above 0.
        advantage_limit: from here on an image counts as wholly good or bad.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
    """

    def __init__(self, *, beta: float, advantage_limit: float, reduction: Reduction = "mean") -> None:
        self.beta = beta
        self.advantage_limit = advantage_limit
        self.reduction: Reduction = reduction

    def loss(self, policy: Policy, batch: ImageGroups, *, generator: torch.Generator) -> LossOutput:
        """Losses of P groups of G images: one forward of P G rows for the policy, and one for the old policy.

        Args:
            policy: the trained model and its reference, the old policy.
            batch: groups of clean latents with advantages.
            generator: source of one time step and one noise for each image.
        """
        (groups, count), clean = batch.advantages.shape, batch.latents.flatten(0, 1)
        rows = noised(
            policy.process,
            clean,
            timestep=policy.process.draw_timesteps(len(clean), generator=generator),
            noise=draw_noise(clean.shape, generator=generator),
            conditioning=batch.conditioning.repeat_interleave(count),
        )
        prediction = rows.prediction(policy)
        with policy.reference():
            old_prediction = rows.prediction(policy)
        positive, negative = nft_errors(
            policy.process,
            prediction,
            old_prediction,
            clean=clean,
            latents=rows.latents,
            timestep=rows.timestep,
            beta=self.beta,
            reduction=self.reduction,
        )
        advantages = weighed(batch.advantages, batch.loss_weight).flatten()
        losses = nft_loss(positive, negative, advantages, beta=self.beta, limit=self.advantage_limit)
        metrics = {
            "error/positive": positive,
            "error/negative": negative,
            "error/policy": rows.errors(prediction),
            "error/reference": rows.errors(old_prediction),
            "distance": distance(prediction, old_prediction),
        }
        return LossOutput(
            losses=losses.view(groups, count).mean(1),
            metrics={name: values.detach().view(groups, count).mean(1) for name, values in metrics.items()},
        )


def nft_objective(
    config: MethodConfig, *, draws: PairDraws | None = None, cache: ReferenceCache | None = None
) -> DiffusionNFT:
    """The objective of a run; nothing is drawn or cached for fresh images."""
    return DiffusionNFT(
        beta=config.beta, advantage_limit=config.objective.advantage_limit or 5.0, reduction=config.reduction
    )
