"""Diversity of a prompt's images: the mean distance between every two of them, and the spectrum of their features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from seedpo.metrics.records import Samples

EIGENVALUES = 20
"""Most eigenvalues that the truncated entropy takes; the number of arXiv 2403.13826's implementation."""

FLOOR = 1e-10
"""Least eigenvalue that the truncated entropy takes: copies have no larger one."""


def mean_pairwise_distance(samples: Samples) -> Tensor:
    """Mean root mean square pixel difference between every two images of a prompt, (P,) in [0, 1]; NaN for K = 1."""
    images = samples.images.flatten(2)
    return _mean_over_pairs(_distances(images) / images.shape[2] ** 0.5)


def mean_cosine_distance(features: Tensor) -> Tensor:
    """Mean of 1 - cos over every two images of a prompt.

    Args:
        features: (P, K, D), of any length; see :func:`directions` for those of length 0.

    Returns:
        (P,) float64 in [0, 2], exactly 0 for copies; NaN for K = 1.
    """
    # For vectors of length 1, 1 - cos = |u - v|^2 / 2.
    return _mean_over_pairs(_distances(directions(features)).square()) / 2


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

    lambda are the eigenvalues of the unbiased covariance, in descending order. The original refuses fewer than 21
    images. Here k is then n - 1, the rank of the covariance, so compare values of equally many images only. Eigenvalues
    below 1e-10 count as 1e-10, because the original is minus infinity for copies.

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
    leading = eigenvalues[..., : min(EIGENVALUES, count - 1)].clamp(min=FLOOR)
    entropy: Tensor = 0.5 * (leading.log() + math.log(2.0 * math.pi * math.e)).sum(-1)
    return entropy


def directions(features: Tensor) -> Tensor:
    """Vectors of length 1 with the directions of features (..., D): (..., D + 1) float64.

    A vector of length 0, such as the pixels of a black image, has no direction. All such vectors share one in a
    dimension of its own: their cosine is 1 among themselves, and 0 with the others.
    """
    wide = features.double()
    is_zero = (wide == 0).all(-1, keepdim=True).double()
    return nn.functional.normalize(torch.cat([wide, is_zero], -1), dim=-1)


def _distances(vectors: Tensor) -> Tensor:
    """Euclidean distances (P, K, K) between vectors (P, K, D) of one prompt."""
    # By matrix products, torch's choice for more than 25 vectors, copies would not be at distance 0.
    distances: Tensor = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return distances


def _mean_over_pairs(distances: Tensor) -> Tensor:
    """Mean of (P, K, K) over every two different images, (P,)."""
    count = distances.shape[-1]
    mean: Tensor = distances.sum((-1, -2)) / (count * (count - 1))
    return mean
