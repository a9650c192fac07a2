"""DSPO on pairs of clean latents; see :mod:`seedpo.core.dspo` for its loss, and for what is kept and left out."""

from __future__ import annotations

import torch

from seedpo.core.draws import PairDraws
from seedpo.core.dspo import dspo_losses
from seedpo.core.objectives import expected_losses, margin_metrics
from seedpo.core.transitions import Reduction, noise_log_prob
from seedpo.core.types import ImagePairs, LossOutput
from seedpo.methods.noising import distance, noised_pairs, pair_errors
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy


class DSPO:
    """The loss on pairs of clean latents.

    Args:
        beta: of the margin and of the preference's score, above 0.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
        draws: time steps and noise as a function of pair and visit; ``None``: drawn from the run's generator.
    """

    def __init__(self, *, beta: float, reduction: Reduction = "mean", draws: PairDraws | None = None) -> None:
        self.beta = beta
        self.reduction: Reduction = reduction
        self.draws = draws

    def loss(self, policy: Policy, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        """Losses of pairs, with one forward of 2B rows for the policy and one for the reference.

        With a probability p below 1 the loss is the expectation over which image is preferred.

        Args:
            policy: the trained model and its reference.
            batch: B pairs of clean latents; with keyed draws it must number the pairs.
            generator: source of the time steps and the noise, unless those are keyed.

        Raises:
            ValueError: if the batch lacks what the draws need.
        """
        rows = noised_pairs(batch, policy.process, draws=self.draws, generator=generator).rows
        prediction = rows.prediction(policy)
        with policy.reference():
            reference = rows.prediction(policy).detach()
        log_ratio = noise_log_prob(prediction, rows.target, reduction=self.reduction) - noise_log_prob(
            reference, rows.target, reduction=self.reduction
        )
        chosen, rejected = (self.beta * log_ratio).chunk(2)
        margin = chosen - rejected
        first, second = dspo_losses(
            prediction,
            reference,
            rows.target,
            torch.cat([margin, -margin]),
            beta=self.beta,
            reduction=self.reduction,
        ).chunk(2)
        return LossOutput(
            losses=expected_losses(first, second, batch.chosen_probability),
            metrics={
                **margin_metrics(chosen, rejected, batch.chosen_probability),
                **pair_errors(rows, policy=prediction, reference=reference),
                "log_ratio/chosen": log_ratio.detach().chunk(2)[0],
                "log_ratio/rejected": log_ratio.detach().chunk(2)[1],
                "distance": distance(prediction, reference).view(2, -1).mean(0),
            },
        )


def dspo_objective(config: MethodConfig, *, draws: PairDraws | None = None) -> DSPO:
    """The objective of a run."""
    return DSPO(beta=config.beta, reduction=config.reduction, draws=draws)
