"""Diversity as the mean distance between images of one prompt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedpo.metrics.records import Samples


def mean_pairwise_distance(samples: Samples) -> Tensor:
    """Mean root mean square pixel difference between every two images of a prompt, (P,) in [0, 1]; NaN for one."""
    images = samples.images.flatten(2)
    count = images.shape[1]
    # By matrix products, torch's choice for more than 25 images, copies would not be at distance 0.
    distances: Tensor = torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances / images.shape[2] ** 0.5
    return distances.sum((1, 2)) / (count * (count - 1))


def mean_cosine_distance(features: Tensor) -> Tensor:
    """Mean of 1 - cos over every two images of a prompt.

    Args:
        features: (P, K, D), of any length; see :func:`directions` for those of length 0.

    Returns:
        (P,) float64 in [0, 2], exactly 0 for copies; NaN for K = 1.
    """
    unit = directions(features)
    count = unit.shape[-2]
    # 1 - cos = |u - v|^2 / 2: without matrix products, copies are at distance 0.
    squares = torch.cdist(unit, unit, compute_mode="donot_use_mm_for_euclid_dist").square()
    return squares.sum((-1, -2)) / (2 * count * (count - 1))


def directions(features: Tensor) -> Tensor:
    """Vectors of length 1 with the directions of features (..., D): (..., D + 1) float64.

    A vector of length 0, as the pixels of a black image are, has no direction. All of them are given the same one, in a
    dimension of its own: their cosine is 1 among themselves, and 0 with the others.
    """
    wide = features.double()
    nothing = (wide == 0).all(-1, keepdim=True).double()
    return nn.functional.normalize(torch.cat([wide, nothing], -1), dim=-1)
