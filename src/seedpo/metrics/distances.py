"""How far the distribution of images is from that of a reference set, in a feature space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seedpo.metrics.sets import checked_pair


def frechet_distance(images: Tensor, reference: Tensor) -> Tensor:
    """Squared Frechet (2-Wasserstein) distance of Gaussians with the features' means and unbiased covariances.

        FD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

    FID (arXiv 1706.08500) is this for Inception features. The root's trace is the sum of the singular values of
    R_1 R_2^T, where S_i = R_i^T R_i: no matrix root is taken, and rank deficiency (N <= D) does no harm. The estimate
    is biased upwards for small sets, so that only values of equally many images can be compared.

    Args:
        images: features (N, D).
        reference: features (M, D).

    Returns:
        () float64, at least 0; NaN if either set has one image.

    Raises:
        DataError: if a set is empty, or they are not features of one kind.
    """
    images, reference = checked_pair(images, reference)
    if min(len(images), len(reference)) < 2:
        return images.new_tensor(math.nan)
    one, other = (_covariance_root(features) for features in (images, reference))
    apart = (images.mean(0) - reference.mean(0)).square().sum()
    cross = torch.linalg.svdvals(one @ other.mT).sum()
    distance: Tensor = apart + one.square().sum() + other.square().sum() - 2.0 * cross
    return distance.clamp(min=0.0)


def kernel_distance(images: Tensor, reference: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy with the kernel (x.y / D + 1)^3.

    KID (arXiv 1801.01401) is this for Inception features. All images are used at once, where common implementations
    average over random subsets: the estimate is unbiased for any size, and does not depend on a draw.

    Args:
        images: features (N, D).
        reference: features (M, D).

    Returns:
        () float64, about 0 for equal distributions, where it may be below; NaN if either set has one image.

    Raises:
        DataError: if a set is empty, or they are not features of one kind.
    """
    images, reference = checked_pair(images, reference)
    if min(len(images), len(reference)) < 2:
        return images.new_tensor(math.nan)
    discrepancy: Tensor = _mean_of_pairs(images) + _mean_of_pairs(reference) - 2.0 * _cubic(images, reference).mean()
    return discrepancy


def _covariance_root(features: Tensor) -> Tensor:
    """R (min(N, D), D) with R^T R the unbiased covariance of features (N, D)."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root


def _cubic(one: Tensor, other: Tensor) -> Tensor:
    kernel: Tensor = (one @ other.mT / one.shape[1] + 1.0) ** 3
    return kernel


def _mean_of_pairs(features: Tensor) -> Tensor:
    """Mean of the kernel over every two different rows."""
    kernel = _cubic(features, features)
    count = len(features)
    mean: Tensor = (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
    return mean
