"""Preferences on the noise-prediction surrogate: Diffusion-DPO (arXiv 2311.12908) and its SEE variant.

Kept: one time step and one noise per pair, shared by both images; the squared error of the prediction as surrogate of
the log-probability; the frozen reference. For flow matching it is the error of the velocity (Flow-DPO, arXiv
2501.13918). The weighting omega(lambda) of noising levels is constant as in the official code, or a row of
:mod:`seedpo.core.noise_weights`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from seedpo.core.draws import PairDraws
from seedpo.core.loser_scale import LOSER_SCALE_MU, LoserScale, with_scaled_gradient
from seedpo.core.losses import DEFAULT_CONSTANTS, LossConstants
from seedpo.core.margin_scale import GapScale
from seedpo.core.noise_weights import MIN_SNR_GAMMA, NOISE_WEIGHTS
from seedpo.core.objectives import see_loss
from seedpo.core.transitions import Reduction, noise_log_prob, over_latents
from seedpo.core.types import ImagePairs, LossOutput
from seedpo.core.weighting import temperature_factor, weighed
from seedpo.methods.beta_rule import BetaRule
from seedpo.methods.noising import NoisedPairs, distance, noised_pairs
from seedpo.methods.settings import MethodConfig, ObjectiveConfig
from seedpo.protocols import Policy, ReferenceCache


class NoiseDPO:
    """The loss on pairs of clean latents.

    Args:
        policy_weight: a of :func:`seedpo.core.entropy.entropy_weights`.
        reference_weight: b of the same.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.
        loss: a name in :data:`seedpo.core.losses.LOSSES`.
        constants: numbers of the losses.
        noise_weight: a name in :data:`seedpo.core.noise_weights.NOISE_WEIGHTS`: w of the pair's time step, which weighs
            the log-probabilities of both images, of policy and reference alike.
        min_snr_gamma: limit of `min-snr`.
        loser_scale: how much of the loser's gradient is kept; ``None``: all of it.
        gap_scale: factor of a pair's margin by the gap of its rewards; ``None``: 1.
        beta: factor of all margins, which changes in the course of the run; ``None``: 1.
        draws: time steps and noise as a function of pair and visit, so that runs share them; ``None``: drawn from
            the run's generator.
        cache: log-probabilities under the reference that were computed before; only with ``draws``.
        prior_noise: whether images are noised with what they were drawn from; see
            :func:`seedpo.methods.noising.noised_pairs`.
        suspect_anchor: kappa of :func:`seedpo.core.weighting.temperature_factor`.

    Raises:
        ValueError: if there is a cache, but no draws that could come again.
    """

    def __init__(
        self,
        *,
        policy_weight: float,
        reference_weight: float,
        reduction: Reduction = "mean",
        loss: str = "sigmoid",
        constants: LossConstants = DEFAULT_CONSTANTS,
        noise_weight: str = "constant",
        min_snr_gamma: float = MIN_SNR_GAMMA,
        loser_scale: LoserScale | None = None,
        gap_scale: GapScale | None = None,
        beta: BetaRule | None = None,
        draws: PairDraws | None = None,
        cache: ReferenceCache | None = None,
        prior_noise: bool = False,
        suspect_anchor: float = 0.0,
    ) -> None:
        if cache is not None and draws is None:
            raise ValueError("a cache of reference log-probabilities needs draws that are the same in every run")
        self.policy_weight = policy_weight
        self.reference_weight = reference_weight
        self.reduction: Reduction = reduction
        self.loss_name = loss
        self.constants = constants
        self.noise_weight = NOISE_WEIGHTS[noise_weight]
        self.min_snr_gamma = min_snr_gamma
        self.loser_scale = loser_scale
        self.gap_scale = gap_scale
        self.beta = beta
        self.draws = draws
        self.cache = cache
        self.prior_noise = prior_noise
        self.suspect_anchor = suspect_anchor

    def loss(self, policy: Policy, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        """Losses of pairs, with one forward of 2B rows for the policy and one for the reference.

        The reference is not called if the cache has its log-probabilities of every pair. The metrics also hold
        those of :func:`error_metrics`, of mean squared errors over the latent dimensions at the step's own times and
        noise. Without a cache ``distance`` is the mean squared difference of both predictions, over both images; with
        one it would be known of some batches only. With what sets them there are ``loser_scale`` (share of the loser's
        gradient that is kept), ``turned`` (1 where the rewards prefer the other image) and ``beta`` (that of this
        update).

        Args:
            policy: the trained model and its reference.
            batch: B pairs of clean latents; with keyed draws it must number the pairs, and with a cache give their
                content.
            generator: source of the time steps and the noise, unless those are keyed.

        Raises:
            ValueError: if the batch lacks what the draws or the cache need.
        """
        pairs = self._noised(policy, batch, generator)
        prediction = pairs.rows.prediction(policy)
        log_prob = self._log_prob(prediction, pairs)
        reference_log_prob, apart = self._known(batch, pairs), {}
        if reference_log_prob is None:
            with policy.reference():
                reference = pairs.rows.prediction(policy)
            reference_log_prob = self._log_prob(reference, pairs)
            if self.cache is None:
                apart = {"distance": distance(prediction, reference).view(2, -1).mean(0)}
        chosen, rejected = log_prob.chunk(2)
        chosen_reference, rejected_reference = reference_log_prob.to(log_prob).chunk(2)
        # Caches hold log-probabilities without the weight, so that runs with other weights share them.
        factors = policy.process.error_weights(pairs.timestep)
        weight = self._scaled(self.noise_weight.weight(*factors, self.min_snr_gamma).to(log_prob), batch)
        side = winning_side(weight, batch.chosen_probability)
        kept = self._kept_gradient(prediction - pairs.rows.target, side)
        factor = temperature_factor(batch.suspect, self.suspect_anchor)
        output = see_loss(
            weight * with_scaled_gradient(chosen, kept[0]),
            weight * with_scaled_gradient(rejected, kept[1]),
            weight * chosen_reference,
            weight * rejected_reference,
            policy_weight=self.policy_weight * factor,
            reference_weight=self.reference_weight * factor,
            chosen_probability=batch.chosen_probability,
            loss=self.loss_name,
            constants=self.constants,
        )
        log_probs = {
            "policy_chosen": chosen,
            "policy_rejected": rejected,
            "reference_chosen": chosen_reference,
            "reference_rejected": rejected_reference,
        }
        dimensions = math.prod(batch.chosen_latents.shape[1:]) if self.reduction == "sum" else 1
        # A log-probability is -1/2 of the squared error.
        errors = {name: -2 * value.detach() / dimensions for name, value in log_probs.items()}
        scales = self._scale_metrics(kept, weight)
        metrics = {**output.metrics, **error_metrics(errors, kept, side), **scales, **apart}
        return replace(output, losses=weighed(output.losses / factor, batch.loss_weight), metrics=metrics)

    def _scaled(self, weight: Tensor, batch: ImagePairs) -> Tensor:
        """The weight of each margin, (B,), times its other factors."""
        if self.gap_scale is not None:
            if batch.gap is None:
                raise ValueError("a scale by the gap of rewards needs pairs that know theirs")
            weight = weight * self.gap_scale.of(batch.gap.to(weight))
        return weight if self.beta is None else weight * self.beta.factor

    def _scale_metrics(self, kept: tuple[Tensor, Tensor], weight: Tensor) -> dict[str, Tensor]:
        """What the factors that the run has set are, (B,) each."""
        metrics = {} if self.loser_scale is None else {"loser_scale": torch.minimum(*kept)}
        if self.gap_scale is not None:
            metrics["turned"] = (weight < 0).to(weight)
        if self.beta is not None:
            metrics["beta"] = torch.full_like(weight, self.reference_weight * self.beta.factor)
        return metrics

    def _kept_gradient(self, residual: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the gradient through each side that is kept, (B,) each: chosen, rejected.

        Args:
            residual: prediction less target, chosen first, (2B, ...).
            side: of :func:`winning_side`, (B,); a tie has no loser, and keeps all of both gradients.
        """
        whole = torch.ones_like(side)
        if self.loser_scale is None:
            return whole, whole
        chosen, rejected = residual.detach().chunk(2)
        wins, loses = (over_latents(side == sign, chosen) for sign in (1, -1))
        scale = self.loser_scale.of(wins * chosen + loses * rejected, wins * rejected + loses * chosen).to(whole)
        return torch.where(side < 0, scale, whole), torch.where(side > 0, scale, whole)

    @torch.no_grad()
    def store_reference(self, policy: Policy, batch: ImagePairs) -> None:
        """Puts what the reference says of a batch into the cache, unless it is known.

        Args:
            policy: the model and its reference.
            batch: as for :meth:`loss`.

        Raises:
            ValueError: if there is no cache, or the batch does not say what the draws and the cache need to know.
        """
        if self.cache is None:
            raise ValueError("there is no cache to store log-probabilities in")
        pairs = self._noised(policy, batch, torch.Generator())
        if self._known(batch, pairs) is None:
            with policy.reference():
                log_prob = self._log_prob(pairs.rows.prediction(policy), pairs)
            self.cache.keep(_content(batch), pairs.timestep, pairs.noise, log_prob.view(2, -1))

    def _noised(self, policy: Policy, batch: ImagePairs, generator: torch.Generator) -> NoisedPairs:
        return noised_pairs(batch, policy.process, draws=self.draws, generator=generator, prior_noise=self.prior_noise)

    def _log_prob(self, prediction: Tensor, pairs: NoisedPairs) -> Tensor:
        return noise_log_prob(prediction, pairs.rows.target, reduction=self.reduction)

    def _known(self, batch: ImagePairs, pairs: NoisedPairs) -> Tensor | None:
        """The reference's log-probabilities, chosen first, (2B,), if the cache has them all."""
        if self.cache is None:
            return None
        log_probs = self.cache.find(_content(batch), pairs.timestep, pairs.noise)
        return None if log_probs is None else log_probs.flatten()


def _content(batch: ImagePairs) -> Tensor:
    if batch.content is None:
        raise ValueError("a cache of reference log-probabilities needs to know what a batch was made from")
    return batch.content


def winning_side(weight: Tensor, chosen_probability: Tensor | None) -> Tensor:
    """Which image of each pair is preferred, (B,): 1 the chosen one, -1 the other, 0 neither.

    Args:
        weight: of each pair's margin, (B,); below 0 a reward turns the pair round.
        chosen_probability: as in :func:`seedpo.core.objectives.preference_loss`.
    """
    side = weight.sign()
    return side if chosen_probability is None else side * (chosen_probability.to(side) - 0.5).sign()


def error_metrics(errors: Mapping[str, Tensor], kept: tuple[Tensor, Tensor], side: Tensor) -> dict[str, Tensor]:
    """What the errors of the predictions say of a pair, (B,) each.

    Args:
        errors: mean squared errors by network and side, (B,) each.
        kept: shares of the gradients of both sides, (B,) each.
        side: of :func:`winning_side`, (B,).

    Returns:
        ``error/...`` of each, ``error/relative_chosen`` and ``error/relative_rejected`` (policy less reference), and
        ``loser_share``: |g_l| / (|g_w| + |g_l|) of the gradients at the network's output, of which as much is kept as
        the step keeps. It is 0.5 where both sides push alike, and above it where the loser's error is the larger. Of a
        tie it is the rejected image's share.
    """
    relative = {
        f"error/relative_{name}": errors[f"policy_{name}"] - errors[f"reference_{name}"]
        for name in ("chosen", "rejected")
    }
    chosen, rejected = kept[0] * errors["policy_chosen"].sqrt(), kept[1] * errors["policy_rejected"].sqrt()
    total, push = chosen + rejected, torch.where(side < 0, chosen, rejected)
    share = torch.where(total > 0, push / total, torch.full_like(total, 0.5))
    return {**{f"error/{name}": value for name, value in errors.items()}, **relative, "loser_share": share}


def _loser_scale(objective: ObjectiveConfig) -> LoserScale | None:
    if objective.loser_scale is None:
        return None
    mu = LOSER_SCALE_MU if objective.loser_scale_mu is None else objective.loser_scale_mu
    return LoserScale(mu=mu, per=objective.loser_scale)


def _gap_scale(objective: ObjectiveConfig) -> GapScale | None:
    if objective.gap_scale is None:
        return None
    return GapScale(strength=objective.gap_scale, temperature=objective.gap_temperature or 1.0)


def noise_objective(
    config: MethodConfig,
    *,
    draws: PairDraws | None = None,
    cache: ReferenceCache | None = None,
    beta: BetaRule | None = None,
) -> NoiseDPO:
    """The objective of a run.

    Args:
        config: of the run.
        draws: as for :class:`NoiseDPO`.
        cache: as for :class:`NoiseDPO`.
        beta: of :func:`seedpo.methods.beta_rule.beta_rule`, which the trainer tells of every update.
    """
    policy_weight, reference_weight = config.weights
    scale = 2.0 if config.fidelity.beta_without_half else 1.0
    return NoiseDPO(
        policy_weight=scale * policy_weight,
        reference_weight=scale * reference_weight,
        reduction=config.reduction,
        loss=config.loss,
        constants=config.objective.loss_constants,
        noise_weight=config.noise_weight,
        min_snr_gamma=config.min_snr_gamma or MIN_SNR_GAMMA,
        loser_scale=_loser_scale(config.objective),
        gap_scale=_gap_scale(config.objective),
        beta=beta,
        draws=draws,
        cache=cache,
        prior_noise=config.objective.prior_noise,
        suspect_anchor=config.weighting.suspect_anchor,
    )
