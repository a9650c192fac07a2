"""How far images and a reference set cover each other: balls around each point that reach to its k-th neighbour.

Precision and recall as in Kynkaanniemi et al., arXiv 1904.06991, with k = 3; density and coverage as in Naeem et al.,
arXiv 2002.09797, with k = 5. Distances are Euclidean. Balls are closed (arXiv 1904.06991, equation 1), also for density
and coverage: that decides only where points coincide. Distances are compared up to rounding: points are one if their
distance is under a millionth of their own lengths, and a ball reaches further than its neighbour by a billionth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seedpo.metrics.sets import checked_pair

NEIGHBOURS = 3
"""k of precision and recall."""

DENSITY_NEIGHBOURS = 5
"""k of density and coverage."""

_COINCIDENT = 1e-12
"""Squared distance, relative to the squared lengths, that is rounding alone."""

_REACH = 1.0 + 1e-9
"""Factor on squared radii, so that the neighbour that makes a ball lies in it whichever way it was rounded."""

_ROWS = 1024
"""Rows of distances that are computed at once."""


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
    held = [(_squares(reference[rows], images) <= radii[rows, None]).any(1) for rows in _batches(len(reference))]
    share = torch.cat(held).double().mean()
    return share if len(reference) > DENSITY_NEIGHBOURS else share.new_tensor(math.nan)


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
    # Each point is its own nearest, at distance 0, so that the k-th neighbour is number k + 1.
    found = [_squares(points[rows], points).kthvalue(k + 1, dim=1).values for rows in _batches(len(points))]
    return torch.cat(found) * _REACH


def _batches(count: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, count, _ROWS)]


def _centred(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64 and seen from the middle of the reference set, where squared distances lose least."""
    images, reference = checked_pair(images, reference)
    middle = reference.mean(0)
    return images - middle, reference - middle


def _squares(one: Tensor, other: Tensor) -> Tensor:
    """Squared distances (N, M) between rows, by matrix products, which are much faster than differences."""
    lengths = one.square().sum(1)[:, None] + other.square().sum(1)
    squares: Tensor = lengths - 2.0 * (one @ other.mT)
    return torch.where(squares <= _COINCIDENT * lengths, 0.0, squares)
