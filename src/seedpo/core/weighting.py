r"""How much the images of a roll-out teach: weights of rare winners, and winners whose reward is doubtful.

Rows are groups: K images of one prompt, or K candidates of one x_t. Nothing here changes who wins. With the distance
d_i of image i to its nearest neighbour in the group, and its reward r_i,

    w_i = (d_i / mean d)^p  where r_i > mean r,  else 1                     GARDO (arXiv 2512.24138), p = 1
    U_i = winrate(r)_i - mean over second opinions s of winrate(s)_i        GARDO, eq. 7

where winrate(r)_i is the share of the group's other images that i beats. A share of the winners, those with the highest
U, is suspect; a share of them, those whose reward exceeds its group's mean by most, is an outlier (after DRIFT, arXiv
2601.12401).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from seedpo.core.transitions import widest_dtype


def nearest_distances(features: Tensor) -> Tensor:
    """Cosine distance, 1 - cos, of every image to its nearest neighbour in the group.

    Args:
        features: vectors other than 0, (P, K, D) with K of at least 2.

    Returns:
        (P, K) float64 in [0, 2].

    Raises:
        ValueError: if a group has a single image.
    """
    if features.shape[1] < 2:
        raise ValueError("a group of one image has no neighbour in it")
    unit = normalize(features.double(), dim=2)
    distances = 1 - unit @ unit.transpose(1, 2)
    itself = torch.eye(features.shape[1], dtype=torch.bool, device=features.device)
    return distances.clamp(0, 2).masked_fill(itself, torch.inf).amin(2)


def excess(scores: Tensor) -> Tensor:
    """Rewards less the mean of their group, (P, K) float64; above 0 is better than the group."""
    return scores.double() - scores.double().mean(1, keepdim=True)


def novelty_weights(distances: Tensor, scores: Tensor, *, power: float) -> Tensor:
    """Weights (d / mean d)^p of images whose reward is above the mean of their group, and 1 of the others.

    Where all images of a group are alike, d = 0, their weights are 1.

    Args:
        distances: of :func:`nearest_distances`, (P, K).
        scores: rewards, (P, K).
        power: p, at least 0; 0 gives 1 throughout.

    Returns:
        (P, K) float64.
    """
    mean = distances.mean(1, keepdim=True)
    relative = torch.where(mean > 0, distances / mean, 1.0)
    return torch.where(excess(scores) > 0, relative**power, 1.0)


def temperature_factor(suspect: Tensor | None, rise: float) -> Tensor | float:
    """1 + kappa of suspect units and 1 of others, which multiplies the weights a and b of their log-probabilities.

    Both grow alike, so that gamma keeps its meaning. A loss L(m) with m = (1 + kappa) m_0 is to be divided by the same
    factor. Then

        dL/dtheta = -a sigma(-(1 + kappa) m_0) (grad log policy(chosen) - grad log policy(rejected))

    for the sigmoid: at m = 0 that of any other pair, and it falls 1 + kappa times as fast in m_0.

    Args:
        suspect: (P,) bool, or the share that is suspect in [0, 1]; ``None`` if there is no second opinion.
        rise: kappa, at least 0.
    """
    return 1.0 if suspect is None or not rise else 1 + rise * suspect.to(widest_dtype(suspect.device))


def weighed(values: Tensor, loss_weight: Tensor | None) -> Tensor:
    """Losses or advantages times their weights of the same shape; as they are without any."""
    return values if loss_weight is None else values * loss_weight.to(values)


def balanced(advantages: Tensor) -> Tensor:
    """Advantages above 0 scaled to add up to as much as those below 0 do, (P, G); all 0 where either side is empty.

    An objective that compares the images of a group with each other needs a sum of 0: only then what every image of
    the prompt has in common cancels.
    """
    above, below = advantages.clamp(min=0), advantages.clamp(max=0)
    up, down = above.sum(1, keepdim=True), -below.sum(1, keepdim=True)
    scaled = above * (down / torch.where(up > 0, up, 1.0)) + below
    return torch.where((up > 0) & (down > 0), scaled, 0.0)


def suspect_share(advantages: Tensor, suspect: Tensor) -> Tensor:
    """Share of the advantages above 0 that suspect images have, (P,) in [0, 1]; 0 where none is above 0.

    Args:
        advantages: (P, G).
        suspect: (P, G) bool.
    """
    above = advantages.clamp(min=0)
    total = above.sum(1)
    return (above * suspect).sum(1) / torch.where(total > 0, total, 1.0)


def win_rates(scores: Tensor) -> Tensor:
    """Share of the other images of the group that each image beats, a tie counting half, (P, K) float64 in [0, 1]."""
    sign = (scores[:, :, None] - scores[:, None, :]).sign().double()
    return (1 + sign.sum(2) / (scores.shape[1] - 1)) / 2


def suspicion(scores: Tensor, opinions: Tensor) -> Tensor:
    """U: winrate by the reward less the mean winrate by second opinions, (P, K) float64 in [-1, 1].

    Args:
        scores: rewards, (P, K).
        opinions: those of other scorers, (R, P, K).
    """
    return win_rates(scores) - torch.stack([win_rates(other) for other in opinions]).mean(0)


def agreed_gaps(scores: Tensor, opinions: Tensor) -> Tensor:
    """Reward of the first of two images less that of the second where every second opinion ranks both alike, else 0.

    Args:
        scores: rewards, (P, K).
        opinions: those of other scorers, (R, P, K); one that calls two images equal does not agree.

    Returns:
        (P, K, K) float64, antisymmetric.
    """
    gap, others = (values.double()[..., :, None] - values.double()[..., None, :] for values in (scores, opinions))
    return torch.where((others.sign() == gap.sign()).all(0), gap, 0.0)


def highest(values: Tensor, among: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """The entries with the highest values: a share of the candidates, of equal ones those that a lot names.

    Args:
        values: finite, any shape.
        among: which entries are candidates, bool of that shape.
        share: in [0, 1]; the number of entries is rounded, halves upwards.
        generator: a CPU generator, which draws the lot.

    Returns:
        Bool of that shape.
    """
    candidates = among.flatten().nonzero()[:, 0]
    lot = candidates[torch.randperm(len(candidates), generator=generator)]
    order = values.flatten()[lot].argsort(stable=True, descending=True)
    marked = torch.zeros(among.numel(), dtype=torch.bool)
    marked[lot[order[: math.floor(share * len(candidates) + 0.5)]]] = True
    return marked.view(among.shape)
