"""How the features of a set of images compare with those of a reference set.

Distances between the distributions: Frechet and kernel distance. Mutual coverage by balls around each point that reach
to its k-th neighbour: precision and recall as in Kynkaanniemi et al., arXiv 1904.06991, with k = 3; density and
coverage as in Naeem et al., arXiv 2002.09797, with k = 5. Distances are Euclidean. Balls are closed (arXiv 1904.06991,
equation 1), also for density and coverage: that matters only where points coincide. Distances are compared up to
rounding: points coincide if their distance is under a millionth of their own lengths, and a ball reaches further than
its neighbour by a billionth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seedpo.errors import DataError

NEIGHBOURS = 3
"""k of precision and recall."""

DENSITY_NEIGHBOURS = 5
"""k of density and coverage."""

_COINCIDENT = 1e-12
"""Squared distance, relative to the squared lengths, below which it is rounding error."""

_REACH = 1.0 + 1e-9
"""Factor on squared radii: the neighbour that defines a ball lies in it despite rounding."""

_ROWS = 1024
"""Rows of distances computed at once."""


def frechet_distance(images: Tensor, reference: Tensor) -> Tensor:
    """Squared Frechet (2-Wasserstein) distance of Gaussians with the features' means and unbiased covariances.

        FD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))

    FID (arXiv 1706.08500) is this for Inception features. The root's trace is the sum of the singular values of
    R_1 R_2^T, where S_i = R_i^T R_i: this needs no matrix root, and rank deficiency (N <= D) does no harm. The estimate
    is biased upwards for small sets: compare values of equally many images only.

    Args:
        images: features (N, D).
        reference: features (M, D).

    Returns:
        () float64, at least 0; NaN if either set has one image.

    Raises:
        DataError: if a set is empty, or their features differ in width.
    """
    images, reference = _checked(images, reference)
    if min(len(images), len(reference)) < 2:
        return images.new_tensor(math.nan)
    root, reference_root = _covariance_root(images), _covariance_root(reference)
    means = (images.mean(0) - reference.mean(0)).square().sum()
    cross = torch.linalg.svdvals(root @ reference_root.mT).sum()
    distance: Tensor = means + root.square().sum() + reference_root.square().sum() - 2.0 * cross
    return distance.clamp(min=0.0)


def kernel_distance(images: Tensor, reference: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy with the kernel (x.y / D + 1)^3.

    KID (arXiv 1801.01401) is this for Inception features. It uses all images at once, where common implementations
    average over random subsets: the estimate is unbiased for any size, and does not depend on a draw.

    Args:
        images: features (N, D).
        reference: features (M, D).

    Returns:
        () float64, about 0 for equal distributions, where it may be below; NaN if either set has one image.

    Raises:
        DataError: if a set is empty, or their features differ in width.
    """
    images, reference = _checked(images, reference)
    if min(len(images), len(reference)) < 2:
        return images.new_tensor(math.nan)
    discrepancy: Tensor = _mean_of_pairs(images) + _mean_of_pairs(reference) - 2.0 * _cubic(images, reference).mean()
    return discrepancy


def precision_per_image(images: Tensor, reference: Tensor) -> Tensor:
    """1 for images within a ball of the reference set, else 0: (N,) float64; NaN for a reference of fewer than 4.

    Args:
        images: features (N, D).
        reference: features (M, D).
    """
    return _within(images, reference, k=NEIGHBOURS).clamp(max=1.0)


def precision(images: Tensor, reference: Tensor) -> Tensor:
    """Share of images within a ball of the reference set, () in [0, 1]; see :func:`precision_per_image`."""
    return precision_per_image(images, reference).mean()


def recall(images: Tensor, reference: Tensor) -> Tensor:
    """Share of the reference set within a ball of the images, () in [0, 1]; NaN for fewer than 4 images."""
    return precision(reference, images)


def density_per_image(images: Tensor, reference: Tensor) -> Tensor:
    """Balls of the reference set that an image lies in, divided by k: (N,) float64; NaN for a reference of under 6.

    Args:
        images: features (N, D).
        reference: features (M, D).
    """
    return _within(images, reference, k=DENSITY_NEIGHBOURS) / DENSITY_NEIGHBOURS


def density(images: Tensor, reference: Tensor) -> Tensor:
    """Mean of :func:`density_per_image`, (), at least 0; 1 is expected of images drawn like the reference set."""
    return density_per_image(images, reference).mean()


def coverage(images: Tensor, reference: Tensor) -> Tensor:
    """Share of the reference set's balls that hold an image, () in [0, 1]; NaN for a reference of fewer than 6."""
    images, reference = _centred(images, reference)
    radii = _radii(reference, k=DENSITY_NEIGHBOURS)
    reached = [(_squares(reference[rows], images) <= radii[rows, None]).any(1) for rows in _batches(len(reference))]
    share = torch.cat(reached).double().mean()
    return share if len(reference) > DENSITY_NEIGHBOURS else share.new_tensor(math.nan)


def _checked(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, D) and (M, D) as float64.

    Raises:
        DataError: if a set is empty, or their features differ in width.
    """
    for what, features in (("images", images), ("reference set", reference)):
        if features.dim() != 2 or len(features) == 0:
            raise DataError(f"features of the {what} have the shape {tuple(features.shape)}; pass (N, D) with N >= 1")
    if images.shape[1] != reference.shape[1]:
        raise DataError(
            f"features of the images are {images.shape[1]} wide, those of the reference set {reference.shape[1]}; "
            "make both with the same network"
        )
    return images.double(), reference.double()


def _covariance_root(features: Tensor) -> Tensor:
    """R (min(N, D), D) with R^T R the unbiased covariance of features (N, D)."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    kernel: Tensor = (x @ y.mT / x.shape[1] + 1.0) ** 3
    return kernel


def _mean_of_pairs(features: Tensor) -> Tensor:
    """Mean of the kernel over every two different rows."""
    kernel = _cubic(features, features)
    count = len(features)
    mean: Tensor = (kernel.sum() - kernel.diagonal().sum()) / (count * (count - 1))
    return mean


def _within(images: Tensor, reference: Tensor, *, k: int) -> Tensor:
    """In how many balls of the reference set each image lies, (N,); NaN where there are no balls."""
    images, reference = _centred(images, reference)
    radii = _radii(reference, k=k)
    counts = [(_squares(images[rows], reference) <= radii).double().sum(1) for rows in _batches(len(images))]
    return torch.cat(counts) if len(reference) > k else images.new_full((len(images),), math.nan)


def _radii(points: Tensor, *, k: int) -> Tensor:
    """Squared distance of each point (M, D) to its k-th neighbour, (M,); NaN where there are fewer."""
    if len(points) <= k:
        return points.new_full((len(points),), math.nan)
    # Each point is its own nearest, at distance 0, so its k-th neighbour is number k + 1.
    squares = [_squares(points[rows], points).kthvalue(k + 1, dim=1).values for rows in _batches(len(points))]
    return torch.cat(squares) * _REACH


def _batches(count: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, count, _ROWS)]


def _centred(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64, relative to the reference set's mean, where squared distances lose least precision."""
    images, reference = _checked(images, reference)
    mean = reference.mean(0)
    return images - mean, reference - mean


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances (N, M) between rows, by matrix products, which are much faster than differences."""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    squares: Tensor = lengths - 2.0 * (x @ y.mT)
    return torch.where(squares <= _COINCIDENT * lengths, 0.0, squares)
