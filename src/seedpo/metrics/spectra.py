"""Diversity from the spectrum of a prompt's images in a feature space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seedpo.metrics.pairwise import directions

EIGENVALUES = 20
"""Of the covariance that the truncated entropy looks at, at most; the number of arXiv 2403.13826's implementation."""

FLOOR = 1e-10
"""Least eigenvalue that the truncated entropy takes: copies have none that is larger."""


def vendi_score(features: Tensor) -> Tensor:
    """Effective number of different images of a prompt (Friedman and Dieng, arXiv 2210.02410).

        VS = exp(-sum_i lambda_i log lambda_i),    lambda: eigenvalues of K / n,    K_ij = cos(x_i, x_j)

    Args:
        features: (P, n, D), of any length.

    Returns:
        (P,) float64 in [1, n]: 1 for copies, n if every two are orthogonal.
    """
    unit = directions(features)
    eigenvalues = torch.linalg.eigvalsh(unit @ unit.mT / unit.shape[-2]).clamp(min=0.0)
    score: Tensor = torch.special.entr(eigenvalues).sum(-1).exp()
    return score


def truncated_entropy(features: Tensor) -> Tensor:
    """Entropy of a Gaussian with the leading eigenvalues of the features' covariance (arXiv 2403.13826).

        H = k/2 log(2 pi e) + 1/2 sum_{i <= k} log lambda_i,    k = min(20, n - 1)

    with the eigenvalues lambda of the unbiased covariance, in descending order. The original refuses fewer than 21
    images; here k is then n - 1, which is all that the covariance has, so that only values of equally many images can
    be compared. Eigenvalues below 1e-10 count as 1e-10: the original is minus infinite for copies.

    Args:
        features: (P, n, D).

    Returns:
        (P,) float64, in nats, of any sign; NaN for n = 1.
    """
    wide = features.double()
    count = wide.shape[-2]
    if count < 2:
        return wide.new_full(wide.shape[:1], math.nan)
    centred = wide - wide.mean(-2, keepdim=True)
    eigenvalues = torch.linalg.svdvals(centred).square() / (count - 1)
    kept = eigenvalues[..., : min(EIGENVALUES, count - 1)].clamp(min=FLOOR)
    entropy: Tensor = 0.5 * (kept.log() + math.log(2.0 * math.pi * math.e)).sum(-1)
    return entropy
