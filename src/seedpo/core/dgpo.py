"""DGPO (arXiv 2510.08425): the images of a group against each other, weighed by their advantages, as pure functions.

A_i is the advantage of image i among the G images of its group, and -e_i / 2 its log-probability: e_i is the squared
error of the prediction, at one time step and one noise for the whole group.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.objectives import implicit_reward


def hold_clipped(log_prob: Tensor, reference_log_prob: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Log-probabilities without gradient where the policy has moved far enough already, as the advantage asks.

    DGPO's published code clips like this: with the errors e = -2 log p it holds an image of positive advantage whose
    exp(e_reference - e) is above 1 + c, and one of negative advantage where it is below 1 - c. The values stay.

    Args:
        log_prob: of the policy, with gradient, any shape.
        reference_log_prob: of the reference.
        advantages: of the same shape.
        clip_range: c, in (0, 1).
    """
    held = is_held(log_prob, reference_log_prob, advantages, clip_range=clip_range)
    return torch.where(held, log_prob.detach(), log_prob)


def is_held(log_prob: Tensor, reference_log_prob: Tensor, advantages: Tensor, *, clip_range: float) -> Tensor:
    """Where :func:`hold_clipped` leaves no gradient, bool."""
    ratio = (2 * (log_prob.detach() - reference_log_prob)).exp()
    return torch.where(advantages > 0, ratio > 1 + clip_range, ratio < 1 - clip_range)


def group_margin(
    log_prob: Tensor,
    reference_log_prob: Tensor,
    advantages: Tensor,
    *,
    policy_weight: float,
    reference_weight: float,
) -> Tensor:
    """The margin of groups: implicit rewards r_i = a log policy - b log reference, weighed by advantages.

        m = (2 / G) sum_i A_i r_i

    Advantages that add up to 0 cancel what of r_i depends on the prompt alone, as the difference of a pair does. For
    G = 2 and A = (1, -1) it is the margin of the pair.

    Args:
        log_prob: nats, (P, G), with gradient.
        reference_log_prob: nats, (P, G), taken as a constant.
        advantages: (P, G).
        policy_weight: a of :func:`seedpo.core.entropy.entropy_weights`.
        reference_weight: b of the same.

    Returns:
        (P,).
    """
    rewards = implicit_reward(
        log_prob, reference_log_prob, policy_weight=policy_weight, reference_weight=reference_weight
    )
    return 2 * (advantages * rewards).mean(1)


def dgpo_loss(margin: Tensor, *, reference_weight: float | Tensor) -> Tensor:
    """DGPO (arXiv 2510.08425): the loss of groups whose margin is m.

        L = -log sigma(m) / b,        dL/dtheta = sigma(S) mean_i A_i grad e_i,    S = -m

    At gamma = 0 that is the gradient of the published code, whose loss is stop(sigma(S)) mean_i A_i e_i with
    S = (beta / G) sum_i A_i (e_i - e_reference,i). For G = 2 and A = (1, -1) it is DPO's gradient divided by beta.

    Args:
        margin: of :func:`group_margin`, (P,).
        reference_weight: b; of groups that differ in it, (P,).

    Returns:
        (P,).
    """
    return -logsigmoid(margin) / reference_weight
