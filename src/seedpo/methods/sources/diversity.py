"""A bonus in the ranking for images that are unlike the prompt's other samples.

    score' = reward + weight x distance(image, the other images of its prompt)

Distances are root mean square pixel differences, in [0, 1], as the metric ``pairwise_diversity`` has them:

    mean          mean over the others: the first variation of half the mean pairwise distance of the image distribution
    nearest       to the closest other image
    log_nearest   its logarithm: weight x log distance is, up to a constant, the Kozachenko-Leonenko estimate (Problems
                  of Information Transmission 23, 1987) of the image's contribution to the entropy of the images, so
                  that the ranking is one for E[r] + (weight / d) H(images), d the dimension of what images vary in

The weight is in units of reward per unit of distance, not scaled by the spread of distances within the prompt: such a
scaling would turn the noise between near copies into differences as large as any, and the bonus would never fade.
docs/derivations.md works both readings out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from seedpo.methods.settings import Distance

LEAST_DISTANCE = 0.5 / 255
"""Images closer than half a grey level of 8 bits count as this far apart, so that copies have a logarithm."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Scores to rank by.

    Attributes:
        scores: rewards with the bonus, (P, K).
        observed: ``diversity_bonus``, the mean bonus, and ``diversity_bonus_std``, its mean spread within a prompt,
            both in units of reward, to be held against ``reward_std``; empty without a bonus.
    """

    scores: Tensor
    observed: Mapping[str, float]


def with_bonus(rewards: Tensor, images: Tensor, *, weight: float, distance: Distance) -> Ranked:
    """Rewards with the bonus of each image.

    Args:
        rewards: (P, K) float32, on the CPU.
        images: K of every prompt in succession, (P K, 3, height, width), in [0, 1].
        weight: reward per unit of distance; at 0 no distance is computed, and the scores are the rewards themselves.
        distance: which one.

    Returns:
        Scores (P, K), and what was observed of the bonus.
    """
    if weight == 0:
        return Ranked(scores=rewards, observed={})
    bonus = weight * distances(images.reshape(*rewards.shape, *images.shape[1:]), distance).to(rewards)
    spread = bonus.std(1).mean().item()
    return Ranked(
        scores=rewards + bonus, observed={"diversity_bonus": bonus.mean().item(), "diversity_bonus_std": spread}
    )


@torch.no_grad()
def distances(images: Tensor, distance: Distance) -> Tensor:
    """How far every image of a prompt is from the others.

    Args:
        images: (P, K, 3, height, width), in [0, 1], at least 2 per prompt.
        distance: which one.

    Returns:
        (P, K) float32; root mean square pixel differences, or their logarithm, at least that of
        :data:`LEAST_DISTANCE`.
    """
    apart = torch.stack([_between(of_prompt) for of_prompt in images.flatten(2)])
    return _DISTANCES[distance](apart)


def _between(images: Tensor) -> Tensor:
    """RMS difference between every two of K images (K, pixels): (K, K)."""
    images = images.float()
    # By matrix products, copies would not be at distance 0.
    apart: Tensor = torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.div(images.shape[1] ** 0.5)


def _mean(apart: Tensor) -> Tensor:
    return apart.sum(2) / (apart.shape[2] - 1)


def _nearest(apart: Tensor) -> Tensor:
    itself = torch.eye(apart.shape[1], dtype=torch.bool, device=apart.device)
    return apart.masked_fill(itself, torch.inf).amin(2)


def _log_nearest(apart: Tensor) -> Tensor:
    return _nearest(apart).clamp(min=LEAST_DISTANCE).log()


_DISTANCES: Mapping[Distance, Callable[[Tensor], Tensor]] = {
    "mean": _mean,
    "nearest": _nearest,
    "log_nearest": _log_nearest,
}
