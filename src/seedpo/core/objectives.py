r"""Preference losses with a self-entropy term: pure functions of log-probabilities.

Notation: Delta f = f(chosen) - f(rejected), sigma the logistic function, log pi in nats (summed or averaged over the
latent dimensions: the caller's choice, and the scale of beta depends on it).

    relative:  max E[r] - beta (KL(pi || pi_ref) - gamma H(pi)),   a = beta (1 + gamma)
    absolute:  max E[r] - beta  KL(pi || pi_ref) + gamma H(pi),    a = beta + gamma
    both:      b = beta,   optimum  pi* ~ pi_ref^{b/a} exp(r / a)

    L = -log sigma( a Delta log pi_policy - b Delta log pi_reference )
      = -log sigma( a Delta log(pi_policy / pi_reference) + (a - b) Delta log pi_reference )

    dL/dtheta = -a sigma(-m) (grad log pi_policy(chosen) - grad log pi_policy(rejected)),   m the margin inside sigma

gamma = 0 gives a = b = beta: the base method, bit for bit. Source: SEE-DPO, arXiv 2411.04712, over DPO, arXiv
2305.18290. The sources at hand do not settle in which convention the paper counts gamma; ``relative`` as the default is
this package's reading, and gamma_absolute = beta * gamma_relative translates between the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.entropy import EntropyConvention, entropy_weights
from seedpo.core.losses import DEFAULT_CONSTANTS, LINEAR_SLOPE, LOSSES, LossConstants
from seedpo.core.types import LossOutput

__all__ = [
    "SATURATION_MARGIN",
    "EntropyConvention",
    "clip_log_ratio",
    "entropy_weights",
    "expected_losses",
    "implicit_reward",
    "margin_metrics",
    "margin_slope",
    "preference_loss",
    "preference_metrics",
    "see_loss",
]

SATURATION_MARGIN = 6.0
"""Beyond this |margin| a pair's gradient weight sigma(-m) is below 0.25 % or above 99.75 %, and hardly depends on m."""


def clip_log_ratio(policy_log_prob: Tensor, reference_log_prob: Tensor, *, clip_range: float | None) -> Tensor:
    """log(policy / reference), held where the ratio is in [1 - clip_range, 1 + clip_range].

    D3PO (arXiv 2311.13231) and SPO (arXiv 2406.04314) compute log(clamp(exp(d))), whose gradient is NaN for large d.
    The clamp in log space has the same value everywhere and the gradient 0 outside the range.

    Args:
        policy_log_prob: nats, (B,), with gradient.
        reference_log_prob: nats, (B,), taken as a constant.
        clip_range: in (0, 1), or None for no clipping.

    Returns:
        The clipped log-ratio, (B,).

    Raises:
        ValueError: if ``clip_range`` is outside (0, 1).
    """
    log_ratio = policy_log_prob - reference_log_prob.detach()
    if clip_range is None:
        return log_ratio
    if not 0 < clip_range < 1:
        raise ValueError(f"clip_range = {clip_range} must lie between 0 and 1 (exclusive), or be none for no clipping")
    return log_ratio.clamp(math.log1p(-clip_range), math.log1p(clip_range))


def implicit_reward(
    policy_log_prob: Tensor,
    reference_log_prob: Tensor,
    *,
    policy_weight: float | Tensor,
    reference_weight: float | Tensor,
    clip_range: float | None = None,
) -> Tensor:
    """The reward for which the policy is optimal, up to a constant of the prompt: a log policy - b log reference.

    Computed as a log(policy / reference) + (a - b) log reference: the two large numbers are subtracted before they are
    weighted, and a = b leaves exactly the base method's reward. With ``clip_range`` only the log-ratio is clipped, and
    the offset is added after it, without gradient: with gamma != 0 the whole is no ratio around 1. That is this
    package's choice; the base methods have no offset to place.

    Args:
        policy_log_prob: nats, (B,), with gradient.
        reference_log_prob: nats, (B,), taken as a constant.
        policy_weight: a of :func:`entropy_weights`; of rows that differ in it, (B,).
        reference_weight: b of :func:`entropy_weights`; likewise.
        clip_range: as in :func:`clip_log_ratio`.

    Returns:
        The implicit reward, (B,).

    Raises:
        ValueError: if ``clip_range`` is outside (0, 1).
    """
    log_ratio = clip_log_ratio(policy_log_prob, reference_log_prob, clip_range=clip_range)
    return policy_weight * log_ratio + (policy_weight - reference_weight) * reference_log_prob.detach()


def sigmoid_loss(margin: Tensor, constants: LossConstants) -> Tensor:
    """-log sigma(m): Bradley-Terry's log-likelihood (DPO)."""
    return -logsigmoid(margin)


def ipo_loss(margin: Tensor, constants: LossConstants) -> Tensor:
    """(h - 1 / (2 b))^2 of h = m / b.

    At a = b = beta, h is Delta log(policy / reference), and this is the paper's loss (eq. 17, whose tau is beta). With
    the entropy term the optimum of a linear preference reward r is a Delta log policy - b Delta log reference = Delta
    r, so that m is what is regressed on 1/2; h = m / b keeps the paper's scale. Its gradient vanishes at m = 1/2.
    """
    losses: Tensor = (margin / constants.beta - 1 / (2 * constants.beta)).square()
    return losses


def hinge_loss(margin: Tensor, constants: LossConstants) -> Tensor:
    """max(0, 1 - m): SLiC's rank calibration with the margin of implicit rewards, as RSO (arXiv 2309.06657) has it."""
    return (1 - margin).clamp(min=0)


def linear_loss(margin: Tensor, constants: LossConstants) -> Tensor:
    """The convex loss whose slope is -w(m), w(m) = clip(1/2 - 0.4 m, eta, 1 - eta): Linear-DPO's weight.

    Linear-DPO (arXiv 2605.21123) replaces the sigmoid in DPO's gradient by this line; with its D = -2 m / beta the
    published code reads clip(1/2 + 0.2 beta D, eta, 1 - eta). That code leaves out the factor beta/2 of DPO's gradient,
    which stays here, so that learning rates compare. The integral is 0.2 (5/4 - m)^2 where nothing is clipped, and
    goes on as a line: with eta = 0 it is 0 from m = 5/4 on, with eta > 0 it falls for ever.
    """
    top = 0.5 / LINEAR_SLOPE
    near = margin.clamp(-constants.linear_reach, constants.linear_reach)
    return LINEAR_SLOPE / 2 * (top - near).square() - LINEAR_SLOPE * (top - near) * (margin - near)


def dmpo_loss(margin: Tensor, constants: LossConstants) -> Tensor:
    """KL(Bern(sigma(m)) || Bern(1 - alpha)): the reverse of the KL that label smoothing minimises (DMPO).

    arXiv 2507.07510, as Diffusion-SDPO's code has it. Its slope is sigma(m) sigma(-m) (m - log((1 - alpha) / alpha)):
    unlike the sigmoid's it also vanishes where a pair is far on the wrong side, and it turns round at sigma(m) = 1 -
    alpha. With a probability p the label is that of the expectation p L(m) + (1 - p) L(-m).
    """
    wrong = constants.dmpo_smoothing
    likely = margin.sigmoid() * (logsigmoid(margin) - math.log1p(-wrong))
    return likely + (-margin).sigmoid() * (logsigmoid(-margin) - math.log(wrong))


def preference_loss(
    chosen_reward: Tensor,
    rejected_reward: Tensor,
    chosen_probability: Tensor | None = None,
    *,
    loss: str = "sigmoid",
    constants: LossConstants = DEFAULT_CONSTANTS,
) -> Tensor:
    """Losses p L(m) + (1 - p) L(-m) of m = chosen_reward - rejected_reward, L from :data:`seedpo.core.losses.LOSSES`.

    With p = 1 it is L(m), bit for bit. For the sigmoid, -p log sigma(m) - (1 - p) log sigma(-m) is the cross-entropy of
    a soft label, as in conservative DPO; the published losses of the three methods know p = 1 only. Finite, with finite
    gradient, for every finite margin.

    Args:
        chosen_reward: (B,).
        rejected_reward: (B,).
        chosen_probability: p, the probability that the first is preferred, in [0, 1], (B,); ``None``: 1 throughout.
        loss: which loss.
        constants: numbers of the losses.

    Returns:
        Losses, (B,).
    """
    function: Callable[[Tensor, LossConstants], Tensor] = LOSSES[loss].function
    margin = chosen_reward - rejected_reward
    if chosen_probability is None:
        return function(margin, constants)
    probability = chosen_probability.to(margin)
    return probability * function(margin, constants) + (1 - probability) * function(-margin, constants)


def margin_slope(
    margin: Tensor,
    chosen_probability: Tensor | None = None,
    *,
    loss: str = "sigmoid",
    constants: LossConstants = DEFAULT_CONSTANTS,
) -> Tensor:
    """dL/dm of :func:`preference_loss` at each margin: -sigma(-m) for the sigmoid and a certain label.

    The gradient of a pair is a times this times (grad log policy(chosen) - grad log policy(rejected)): below 0 it pulls
    the chosen side up and pushes the rejected one away.

    Args:
        margin: m, (B,).
        chosen_probability: as in :func:`preference_loss`.
        loss: as in :func:`preference_loss`.
        constants: as in :func:`preference_loss`.

    Returns:
        Slopes, (B,), without gradient.
    """
    with torch.enable_grad():
        leaf = margin.detach().requires_grad_()
        losses = preference_loss(leaf, torch.zeros_like(leaf), chosen_probability, loss=loss, constants=constants)
        (slope,) = torch.autograd.grad(losses.sum(), leaf)
    return slope


def see_loss(
    chosen_log_prob: Tensor,
    rejected_log_prob: Tensor,
    chosen_reference_log_prob: Tensor,
    rejected_reference_log_prob: Tensor,
    *,
    policy_weight: float | Tensor,
    reference_weight: float | Tensor,
    clip_range: float | None = None,
    chosen_probability: Tensor | None = None,
    loss: str = "sigmoid",
    constants: LossConstants = DEFAULT_CONSTANTS,
) -> LossOutput:
    """The loss and its metrics, of log-probabilities of predicted noise or of denoising steps.

    Args:
        chosen_log_prob: log policy of the preferred side, nats, (B,), with gradient.
        rejected_log_prob: log policy of the other side, nats, (B,), with gradient.
        chosen_reference_log_prob: log reference of the preferred side, nats, (B,).
        rejected_reference_log_prob: log reference of the other side, nats, (B,).
        policy_weight: a of :func:`entropy_weights`; of pairs that differ in it, (B,).
        reference_weight: b of :func:`entropy_weights`; likewise.
        clip_range: as in :func:`clip_log_ratio`.
        chosen_probability: as in :func:`preference_loss`.
        loss: as in :func:`preference_loss`.
        constants: numbers of the losses; their beta is b, whatever it says.

    Returns:
        Losses (B,), the metrics of :func:`preference_metrics`, and ``gradient_factor``: |dL/dm|, sigma(-m) for the
        sigmoid and a certain label.

    Raises:
        ValueError: if ``clip_range`` is outside (0, 1).
    """
    chosen_reward, rejected_reward = (
        implicit_reward(
            policy,
            reference,
            policy_weight=policy_weight,
            reference_weight=reference_weight,
            clip_range=clip_range,
        )
        for policy, reference in (
            (chosen_log_prob, chosen_reference_log_prob),
            (rejected_log_prob, rejected_reference_log_prob),
        )
    )
    reference = chosen_reference_log_prob - rejected_reference_log_prob
    constants = replace(constants, beta=reference_weight)
    slope = margin_slope(chosen_reward - rejected_reward, chosen_probability, loss=loss, constants=constants)
    metrics = preference_metrics(
        chosen_reward,
        rejected_reward,
        chosen_log_ratio=chosen_log_prob - chosen_reference_log_prob,
        rejected_log_ratio=rejected_log_prob - rejected_reference_log_prob,
        offset=(policy_weight - reference_weight) * reference.detach(),
        clip_range=clip_range,
        chosen_probability=chosen_probability,
    )
    return LossOutput(
        losses=preference_loss(chosen_reward, rejected_reward, chosen_probability, loss=loss, constants=constants),
        metrics={**metrics, "gradient_factor": slope.abs()},
        spreads=("offset",),
    )


@torch.no_grad()
def preference_metrics(
    chosen_reward: Tensor,
    rejected_reward: Tensor,
    *,
    chosen_log_ratio: Tensor,
    rejected_log_ratio: Tensor,
    offset: Tensor,
    clip_range: float | None,
    chosen_probability: Tensor | None = None,
) -> dict[str, Tensor]:
    """What tells whether a run is learning, one detached value per pair, (B,).

    Args:
        chosen_reward: implicit reward of the preferred side, (B,).
        rejected_reward: implicit reward of the other side, (B,).
        chosen_log_ratio: unclipped log(policy / reference) of the preferred side, nats, (B,).
        rejected_log_ratio: the same of the other side, (B,).
        offset: (a - b) Delta log reference, (B,).
        clip_range: as in :func:`clip_log_ratio`.
        chosen_probability: as in :func:`preference_loss`.

    Returns:
        ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins`` (m), ``rewards/accuracies`` (1 where m > 0; with a
        probability p the chance that a person agrees with the sign of m: p where m > 0, else 1 - p, so 0.5 for a tie),
        ``offset`` (the part of m that the policy cannot change), ``margin_abs`` (|m|), ``saturated`` (1 where |m| >
        :data:`SATURATION_MARGIN`), ``clipped`` (0, 0.5 or 1: how many of the two ratios are outside the clip range),
        ``log_ratio/chosen`` and ``log_ratio/rejected`` (unclipped, nats).
    """
    outside = [_outside(log_ratio, clip_range) for log_ratio in (chosen_log_ratio, rejected_log_ratio)]
    metrics = {
        **margin_metrics(chosen_reward, rejected_reward, chosen_probability),
        "offset": offset,
        "clipped": (outside[0] + outside[1]) / 2,
        "log_ratio/chosen": chosen_log_ratio,
        "log_ratio/rejected": rejected_log_ratio,
    }
    return {name: value.detach() for name, value in metrics.items()}


@torch.no_grad()
def margin_metrics(
    chosen_reward: Tensor, rejected_reward: Tensor, chosen_probability: Tensor | None = None
) -> dict[str, Tensor]:
    """Those of :func:`preference_metrics` that any two numbers for a pair have, (B,): rewards, margins and accuracies.

    Args:
        chosen_reward: of the preferred side, (B,).
        rejected_reward: of the other side, (B,).
        chosen_probability: as in :func:`preference_loss`.
    """
    margin = chosen_reward - rejected_reward
    metrics = {
        "rewards/chosen": chosen_reward,
        "rewards/rejected": rejected_reward,
        "rewards/margins": margin,
        "rewards/accuracies": _agreement(margin, chosen_probability),
        "margin_abs": margin.abs(),
        "saturated": (margin.abs() > SATURATION_MARGIN).to(margin.dtype),
    }
    return {name: value.detach() for name, value in metrics.items()}


def expected_losses(losses: Tensor, swapped: Tensor, chosen_probability: Tensor | None) -> Tensor:
    """The expectation p L + (1 - p) L' over which side is preferred, (B,).

    Args:
        losses: L, of pairs whose first side is preferred, (B,).
        swapped: L', of the same pairs with the second side preferred, (B,).
        chosen_probability: p, as in :func:`preference_loss`.
    """
    if chosen_probability is None:
        return losses
    probability = chosen_probability.to(losses)
    return probability * losses + (1 - probability) * swapped


def _agreement(margin: Tensor, chosen_probability: Tensor | None) -> Tensor:
    """The probability that a person prefers the side that the margin prefers."""
    agrees = (margin > 0).to(margin.dtype)
    if chosen_probability is None:
        return agrees
    probability = chosen_probability.to(margin)
    return agrees * probability + (1 - agrees) * (1 - probability)


def _outside(log_ratio: Tensor, clip_range: float | None) -> Tensor:
    """1 where the ratio is clipped, else 0."""
    if clip_range is None:
        return torch.zeros_like(log_ratio)
    below, above = math.log1p(-clip_range), math.log1p(clip_range)
    return ((log_ratio < below) | (log_ratio > above)).to(log_ratio.dtype)
