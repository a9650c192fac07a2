"""Preferences on the noise-prediction surrogate: Diffusion-DPO (arXiv 2311.12908) and its SEE variant.

Kept: one time step and one noise per pair, shared by both images; the squared error of the prediction as surrogate of
the log-probability; the frozen reference. Left out: the SNR weighting omega(lambda), constant in the official code too.
"""

from __future__ import annotations

import torch

from seedpo.core.diffusion import add_noise, prediction_target
from seedpo.core.objectives import see_loss
from seedpo.core.sampling import draw_noise
from seedpo.core.transitions import Reduction, noise_log_prob
from seedpo.core.types import Conditioning, ImagePairs, LossOutput
from seedpo.protocols import Policy


class NoiseDPO:
    """The loss on pairs of clean latents.

    Args:
        policy_weight: a of :func:`seedpo.core.entropy.entropy_weights`.
        reference_weight: b of the same.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
    """

    def __init__(self, *, policy_weight: float, reference_weight: float, reduction: Reduction = "mean") -> None:
        self.policy_weight = policy_weight
        self.reference_weight = reference_weight
        self.reduction: Reduction = reduction

    def loss(self, policy: Policy, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        """Losses of pairs, with one forward of 2B rows for the policy and one for the reference.

        Args:
            policy: the trained model and its reference.
            batch: B pairs of clean latents.
            generator: source of the time steps and the noise.
        """
        count, schedule = len(batch), policy.schedule
        device = batch.chosen_latents.device
        timestep = torch.randint(len(schedule), (count,), generator=generator).to(device).repeat(2)
        noise = draw_noise(batch.chosen_latents.shape, generator=generator, device=device).repeat(2, 1, 1, 1)
        clean = torch.cat([batch.chosen_latents, batch.rejected_latents])
        noisy = add_noise(clean, noise, timestep, schedule)
        target = prediction_target(clean, noise, schedule.alpha_cumprod(timestep), schedule.prediction_type)
        conditioning = Conditioning.cat([batch.conditioning, batch.conditioning])
        prediction = policy.predict(noisy, timestep, conditioning)
        with policy.reference():
            reference_prediction = policy.predict(noisy, timestep, conditioning)
        chosen, rejected = noise_log_prob(prediction, target, reduction=self.reduction).chunk(2)
        chosen_reference, rejected_reference = noise_log_prob(
            reference_prediction, target, reduction=self.reduction
        ).chunk(2)
        return see_loss(
            chosen,
            rejected,
            chosen_reference,
            rejected_reference,
            policy_weight=self.policy_weight,
            reference_weight=self.reference_weight,
        )
