"""MaPO on pairs of clean latents; see :mod:`seedpo.core.mapo` for its loss, and for what is kept and left out."""

from __future__ import annotations

import torch

from seedpo.core.draws import PairDraws
from seedpo.core.mapo import bounded_fit, mapo_losses
from seedpo.core.objectives import expected_losses, margin_metrics
from seedpo.core.transitions import Reduction, noise_log_prob
from seedpo.core.types import ImagePairs, LossOutput
from seedpo.methods.noising import noised_pairs, pair_errors
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy


class MaPO:
    """The loss on pairs of clean latents, without a reference.

    Args:
        beta: weight of the margin beside the diffusion loss on preferred images, above 0.
        scale: s, what squared errors are multiplied by before they are bounded, above 0.
        steps: T, what the margin is multiplied by, above 0.
        reduction: of squared errors over the latent dimensions: ``mean`` as published, or ``sum``.
        draws: time steps and noise as a function of pair and visit; ``None``: drawn from the run's generator.
    """

    def __init__(
        self,
        *,
        beta: float,
        scale: float,
        steps: float,
        reduction: Reduction = "mean",
        draws: PairDraws | None = None,
    ) -> None:
        self.beta = beta
        self.scale = scale
        self.steps = steps
        self.reduction: Reduction = reduction
        self.draws = draws

    def loss(self, policy: Policy, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        """Losses of pairs, with one forward of 2B rows; the reference is not called.

        ``rewards/chosen`` and ``rewards/rejected`` are T f(e). Their difference, the margin, is not 0 before training:
        it says which image the model fits better. With a probability p below 1 the loss is the expectation over which
        image is preferred.

        Args:
            policy: the trained model.
            batch: B pairs of clean latents; with keyed draws it must number the pairs.
            generator: source of the time steps and the noise, unless those are keyed.

        Raises:
            ValueError: if the batch lacks what the draws need.
        """
        rows = noised_pairs(batch, policy.process, draws=self.draws, generator=generator).rows
        prediction = rows.prediction(policy)
        error = -2 * noise_log_prob(prediction, rows.target, reduction=self.reduction)
        chosen, rejected = (self.steps * bounded_fit(error, scale=self.scale)).chunk(2)
        margin = chosen - rejected
        first, second = mapo_losses(error, torch.cat([margin, -margin]), beta=self.beta).chunk(2)
        return LossOutput(
            losses=expected_losses(first, second, batch.chosen_probability),
            metrics={
                **margin_metrics(chosen, rejected, batch.chosen_probability),
                **pair_errors(rows, policy=prediction),
            },
        )


def mapo_objective(config: MethodConfig, *, draws: PairDraws | None = None) -> MaPO:
    """The objective of a run."""
    return MaPO(
        beta=config.beta,
        scale=config.objective.error_scale,
        steps=config.objective.margin_steps,
        reduction=config.reduction,
        draws=draws,
    )
