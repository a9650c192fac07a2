"""Metrics that look at features, one maker for each: it takes which features, and the place of their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from seedpo.metrics.distances import frechet_distance, kernel_distance
from seedpo.metrics.features.names import load_features
from seedpo.metrics.neighbours import (
    DENSITY_NEIGHBOURS,
    NEIGHBOURS,
    coverage,
    density,
    density_per_image,
    precision,
    precision_per_image,
    recall,
)
from seedpo.metrics.pairwise import mean_cosine_distance
from seedpo.metrics.spectra import truncated_entropy, vendi_score
from seedpo.protocols import Metric, Samples, SetMetric


@dataclass(frozen=True)
class FeaturesOf:
    """Features of samples, computed once for all the metrics that look at them: equal for one name and place.

    Attributes:
        features: name of the features.
        place: of their weights; none: the default place.
    """

    features: str
    place: str | None

    def __call__(self, samples: Samples) -> Tensor:
        """Features (P, K, D) float32; the network is loaded at the first call, onto the GPU if there is one."""
        extractor = load_features(self.features, self.place)
        if torch.cuda.is_available():
            extractor.to(torch.device("cuda", torch.cuda.current_device()))
        images, _ = samples.flat()
        found: Tensor = extractor(images)
        return found.view(*samples.images.shape[:2], -1)


def _joined(of_features: Callable[[Tensor], Tensor], found: FeaturesOf) -> Callable[[Samples], Tensor]:
    return lambda samples: of_features(samples.derive(found))


def _written(features: str) -> str:
    """The name of features within that of a metric."""
    return features.replace("-", "_")


@cache
def diversity(features: str, place: str | None = None) -> Metric:
    """Mean cosine distance between images of a prompt; see :func:`seedpo.metrics.pairwise.mean_cosine_distance`."""
    return Metric(
        name=f"{_written(features)}_diversity",
        direction="higher",
        unit="cosine distance",
        summary=f"mean {features} distance between images of one prompt; 0: all the same",
        per_prompt=_joined(mean_cosine_distance, FeaturesOf(features, place)),
        of_features=mean_cosine_distance,
        features=features,
        least_images=2,
    )


@cache
def vendi(features: str, place: str | None = None) -> Metric:
    """Vendi score of a prompt's images; see :func:`seedpo.metrics.spectra.vendi_score`."""
    return Metric(
        name=f"vendi_{_written(features)}",
        direction="higher",
        unit="images",
        summary=f"effective number of different images of one prompt by {features}; 1: all the same",
        per_prompt=_joined(vendi_score, FeaturesOf(features, place)),
        of_features=vendi_score,
        features=features,
    )


@cache
def tce(features: str, place: str | None = None) -> Metric:
    """Truncated entropy of a prompt's images; see :func:`seedpo.metrics.spectra.truncated_entropy`."""
    return Metric(
        name=f"tce_{_written(features)}",
        direction="higher",
        unit="nats",
        summary=f"truncated entropy of a Gaussian fitted to the {features} features of a prompt's images",
        per_prompt=_joined(truncated_entropy, FeaturesOf(features, place)),
        of_features=truncated_entropy,
        features=features,
        least_images=2,
    )


@cache
def precision_of(features: str, place: str | None = None) -> SetMetric:
    """Share of images that are like the reference set; see :func:`seedpo.metrics.neighbours.precision`."""
    return SetMetric(
        name=f"precision_{_written(features)}",
        direction="higher",
        unit="share of images",
        summary=f"images that lie among those of the reference set by {features}: fidelity",
        features=features,
        of_features=precision,
        per_image=precision_per_image,
        least_images=NEIGHBOURS + 1,
    )


@cache
def recall_of(features: str, place: str | None = None) -> SetMetric:
    """Share of the reference set that is like the images; see :func:`seedpo.metrics.neighbours.recall`."""
    return SetMetric(
        name=f"recall_{_written(features)}",
        direction="higher",
        unit="share of the reference set",
        summary=f"reference images that lie among the images by {features}: diversity",
        features=features,
        of_features=recall,
        least_images=NEIGHBOURS + 1,
    )


@cache
def density_of(features: str, place: str | None = None) -> SetMetric:
    """How deep among the reference set images lie; see :func:`seedpo.metrics.neighbours.density`."""
    return SetMetric(
        name=f"density_{_written(features)}",
        direction="higher",
        unit="neighbourhoods / k",
        summary=f"reference neighbourhoods around an image by {features}; 1: as in the reference set itself",
        features=features,
        of_features=density,
        per_image=density_per_image,
        least_images=DENSITY_NEIGHBOURS + 1,
    )


@cache
def coverage_of(features: str, place: str | None = None) -> SetMetric:
    """Share of the reference set that has an image near; see :func:`seedpo.metrics.neighbours.coverage`."""
    return SetMetric(
        name=f"coverage_{_written(features)}",
        direction="higher",
        unit="share of the reference set",
        summary=f"reference images with an image in their neighbourhood by {features}: diversity",
        features=features,
        of_features=coverage,
        least_images=DENSITY_NEIGHBOURS + 1,
    )


@cache
def fd(features: str, place: str | None = None) -> SetMetric:
    """Frechet distance to the reference set; see :func:`seedpo.metrics.distances.frechet_distance`."""
    return SetMetric(
        name=f"fd_{_written(features)}",
        direction="lower",
        unit="squared distance",
        summary=f"Frechet distance between images and reference set by {features}",
        features=features,
        of_features=frechet_distance,
    )


@cache
def kid(features: str, place: str | None = None) -> SetMetric:
    """Kernel distance to the reference set; see :func:`seedpo.metrics.distances.kernel_distance`."""
    return SetMetric(
        name=f"kid_{_written(features)}",
        direction="lower",
        unit="squared MMD",
        summary=f"kernel distance between images and reference set by {features}; about 0: alike",
        features=features,
        of_features=kernel_distance,
    )
