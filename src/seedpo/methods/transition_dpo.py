"""Preferences on the Gaussian density of denoising steps: D3PO (arXiv 2311.13231), SPO (arXiv 2406.04314), SEE of both.

The two methods share this loss and differ in where their pairs come from. Kept: classifier-free guidance in training as
in sampling, the clip of the ratio to the reference, log-probabilities averaged over the latent dimensions. Left out:
importance weights between roll-out and current policy, which neither paper has. Every x_t of a batch runs through a
network once, however many steps and pairs share it, and the reference's log-probabilities are taken from the batch
where it carries them. The official code runs policy and reference once for each side of each pair, with equal
gradients.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from seedpo.core.draws import PairDraws
from seedpo.core.losses import DEFAULT_CONSTANTS, LossConstants
from seedpo.core.objectives import see_loss
from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.transitions import Reduction, gaussian_log_prob, scaled_square, squared_distance
from seedpo.core.types import LossOutput, StepBatch
from seedpo.core.weighting import temperature_factor, weighed
from seedpo.methods.settings import MethodConfig
from seedpo.protocols import Policy, ReferenceCache


class TransitionDPO:
    """The loss on pairs of denoising steps.

    Args:
        policy_weight: a of :func:`seedpo.core.entropy.entropy_weights`.
        reference_weight: b of the same.
        sampling: guidance and eta of the steps, as they were sampled.
        clip_range: range of the ratio policy/reference; ``None``: no clipping.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
        loss: a name in :data:`seedpo.core.losses.LOSSES`.
        constants: numbers of the losses.
        square: whether -|x' - mean|^2 stands for the log-probability, as in the published code of CPS.
        suspect_anchor: kappa of :func:`seedpo.core.weighting.temperature_factor`.

    Raises:
        ValueError: if ``eta`` is 0: deterministic steps have no density.
    """

    def __init__(
        self,
        *,
        policy_weight: float,
        reference_weight: float,
        sampling: SamplingSettings,
        clip_range: float | None = None,
        reduction: Reduction = "mean",
        loss: str = "sigmoid",
        constants: LossConstants = DEFAULT_CONSTANTS,
        square: bool = False,
        suspect_anchor: float = 0.0,
    ) -> None:
        if sampling.eta is not None and not sampling.eta > 0:
            raise ValueError(f"eta = {sampling.eta} must be above 0: a deterministic step has no density")
        self.policy_weight = policy_weight
        self.reference_weight = reference_weight
        self.sampling = sampling
        self.clip_range = clip_range
        self.reduction: Reduction = reduction
        self.loss_name = loss
        self.constants = constants
        self.square = square
        self.suspect_anchor = suspect_anchor

    def loss(self, policy: Policy, batch: StepBatch, *, generator: torch.Generator) -> LossOutput:
        """Losses of pairs of steps: one forward of the policy, and one of the reference unless the batch carries it.

        Without it the metrics also hold ``distance``, (P,): the mean squared difference of the means of both networks'
        steps, over both sides of a pair.

        Args:
            policy: the trained model and its reference.
            batch: pairs of steps, all of which have a density.
            generator: not used; nothing is drawn here.
        """
        sampler = Sampler(policy, self.sampling)
        step = sampler.gaussians(batch)
        log_prob = gaussian_log_prob(batch.next_latents, step.mean, step.std)
        reference, apart = batch.reference_log_prob, {}
        if reference is None:
            with policy.reference():
                other = sampler.gaussians(batch)
            reference = gaussian_log_prob(batch.next_latents, other.mean, other.std)
            squares = squared_distance(step.mean.detach(), other.mean)
            apart = {"distance": (squares[batch.chosen] + squares[batch.rejected]) / 2}
        entries = math.prod(batch.next_latents.shape[1:])
        if self.square:
            std = policy.process.step_std(batch.timestep, batch.next_timestep, eta=sampler.eta)[batch.start]
            log_prob, reference = (scaled_square(values, std, entries) for values in (log_prob, reference))
        dimensions = entries if self.reduction == "mean" else 1
        log_prob, reference = log_prob / dimensions, reference / dimensions
        sides = [values[side] for values in (log_prob, reference) for side in (batch.chosen, batch.rejected)]
        if batch.weight is not None:
            sides = [batch.weight * values for values in sides]
        factor = temperature_factor(batch.suspect, self.suspect_anchor)
        output = see_loss(
            *sides,
            policy_weight=self.policy_weight * factor,
            reference_weight=self.reference_weight * factor,
            clip_range=self.clip_range,
            loss=self.loss_name,
            constants=self.constants,
        )
        losses = weighed(output.losses / factor, batch.loss_weight)
        return replace(output, losses=losses, metrics={**output.metrics, **apart})


def transition_objective(
    config: MethodConfig, *, draws: PairDraws | None = None, cache: ReferenceCache | None = None
) -> TransitionDPO:
    """The objective of a run; nothing is drawn or cached for pairs of steps."""
    policy_weight, reference_weight = config.weights
    return TransitionDPO(
        policy_weight=policy_weight,
        reference_weight=reference_weight,
        sampling=config.sampling,
        clip_range=config.clip_range,
        reduction=config.reduction,
        loss=config.loss,
        constants=config.objective.loss_constants,
        square=config.fidelity.cps_square,
        suspect_anchor=config.weighting.suspect_anchor,
    )
