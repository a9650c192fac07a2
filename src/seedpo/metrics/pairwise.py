"""Diversity as the mean distance between images of one prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.protocols import Metric, Samples


def mean_pairwise_distance(samples: Samples) -> Tensor:
    """Mean root mean square pixel difference between every two images of a prompt, (P,) in [0, 1]; NaN for one."""
    images = samples.images.flatten(2)
    count = images.shape[1]
    # By matrix products, torch's choice for more than 25 images, copies would not be at distance 0.
    distances: Tensor = torch.cdist(images, images, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances / images.shape[2] ** 0.5
    return distances.sum((1, 2)) / (count * (count - 1))


PAIRWISE_DIVERSITY = Metric(
    name="pairwise_diversity",
    direction="higher",
    unit="RMS pixel difference in [0, 1]",
    summary="mean distance between images of one prompt from different latents; 0: all the same",
    per_prompt=mean_pairwise_distance,
    least_images=2,
)
