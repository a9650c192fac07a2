"""Diffusion-KTO on single images; see :mod:`seedpo.core.kto` for its loss, and for what is kept and left out."""

from __future__ import annotations

import torch

from seedpo.core.draws import PairDraws
from seedpo.core.kto import kto_baseline, kto_losses, kto_margin
from seedpo.core.objectives import SATURATION_MARGIN
from seedpo.core.transitions import Reduction, noise_log_prob
from seedpo.core.types import Likes, LossOutput
from seedpo.methods.noising import distance, drawn, noised
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy


class DiffusionKTO:
    """The loss on single images that somebody liked or not.

    Args:
        beta: weight of the distance from the reference, above 0.
        liked_weight: weight of liked images, 0 or more.
        disliked_weight: weight of the others, 0 or more.
        reduction: of squared errors over the latent dimensions: ``mean`` as published, or ``sum``.
        draws: time steps and noise as a function of row and visit; ``None``: drawn from the run's generator.
    """

    def __init__(
        self,
        *,
        beta: float,
        liked_weight: float = 1.0,
        disliked_weight: float = 1.0,
        reduction: Reduction = "mean",
        draws: PairDraws | None = None,
    ) -> None:
        self.beta = beta
        self.liked_weight = liked_weight
        self.disliked_weight = disliked_weight
        self.reduction: Reduction = reduction
        self.draws = draws

    def loss(self, policy: Policy, batch: Likes, *, generator: torch.Generator) -> LossOutput:
        """Losses of images, with one forward of B rows for the policy and one for the reference.

        Q is the mean over this micro-batch alone; the published code averages those of its processes.

        Args:
            policy: the trained model and its reference.
            batch: B images; with keyed draws it must number them.
            generator: source of the time steps and the noise, unless those are keyed.

        Raises:
            ValueError: if the batch lacks what the draws need.
        """
        clean, process = batch.latents, policy.process
        timestep, noise = drawn(batch, process, clean.shape[1:], draws=self.draws, generator=generator)
        rows = noised(process, clean, noise, timestep, batch.conditioning)
        prediction = rows.prediction(policy)
        with policy.reference():
            reference = rows.prediction(policy).detach()
        log_probs = [noise_log_prob(side, rows.target, reduction=self.reduction) for side in (prediction, reference)]
        rewards = 2 * self.beta * (log_probs[0] - log_probs[1])
        baseline = kto_baseline(rewards)
        margin = kto_margin(rewards, batch.liked, baseline=baseline)
        size = margin.abs().detach()
        return LossOutput(
            losses=kto_losses(
                margin, batch.liked, liked_weight=self.liked_weight, disliked_weight=self.disliked_weight
            ),
            metrics={
                "rewards/margins": margin.detach(),
                "rewards/accuracies": (margin > 0).to(margin),
                "margin_abs": size,
                "saturated": (size > SATURATION_MARGIN).to(size),
                "baseline": baseline.expand(len(batch)),
                "liked": batch.liked.to(size),
                "error/policy": rows.errors(prediction),
                "error/reference": rows.errors(reference),
                "distance": distance(prediction, reference),
            },
        )


def kto_objective(config: MethodConfig, *, draws: PairDraws | None = None) -> DiffusionKTO:
    """The objective of a run."""
    return DiffusionKTO(
        beta=config.beta,
        liked_weight=config.objective.liked_weight,
        disliked_weight=config.objective.disliked_weight,
        reduction=config.reduction,
        draws=draws,
    )
