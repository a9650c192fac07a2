"""Metrics by the names that users write.

A name is one of these::

    clip_diversity               registered; `seedpo list metrics` and `seedpo list set-metrics` show them
    clip_diversity@models/clip   the same, the weights of its features elsewhere: a folder, or owner/name on the hub
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.metrics.catalogue import FEATURES, features_entry, metric_entry
from seedpo.metrics.records import Metric, Samples, SetMetric
from seedpo.protocols import Features
from seedpo.registry import load_target


def build_metric(name: str) -> Metric | SetMetric:
    """The metric of a name; the network behind its features is loaded when it first measures.

    Raises:
        ConfigError: see :func:`seedpo.metrics.catalogue.metric_entry`.
    """
    entry, place = metric_entry(name)
    function: Callable[..., Tensor] = entry.load()
    if entry.reference:
        per_image = None if entry.per_image is None else load_target(entry.per_image)
        return SetMetric(facts=entry, of_features=function, per_image=per_image)
    if entry.features is None:
        return Metric(facts=entry, per_prompt=function)
    features = FeaturesOf(entry.features, place)
    return Metric(facts=entry, per_prompt=lambda samples: function(samples.derive(features)), of_features=function)


def build_prompt_metric(name: str) -> Metric:
    """The metric of a name, if it is measured on the images of each prompt.

    Raises:
        ConfigError: if it compares all images with a reference set, or if there is no such metric.
    """
    metric = build_metric(name)
    if isinstance(metric, SetMetric):
        raise ConfigError(f"metric {name} needs a reference set, which evaluations of a run do not have; leave it out")
    return metric


def build_features(name: str, *, device: torch.device | str | None = None) -> Features | None:
    """The extractor that a metric looks through, loaded once per process and place.

    Args:
        name: of the metric, as the user wrote it.
        device: for its network; `None` leaves it where it is.

    Returns:
        The extractor; `None` if the metric looks at the images themselves.

    Raises:
        ConfigError: see :func:`seedpo.metrics.catalogue.metric_entry`.
        DataError: if the weights cannot be loaded.
    """
    entry, place = metric_entry(name)
    if entry.features is None:
        return None
    extractor = load_features(entry.features, place)
    features: Features = extractor if device is None else extractor.to(device)
    return features


def build_named_features(name: str, *, device: torch.device | str) -> Features:
    """The extractor of features as the user named them, `name` or `name@place`, on a device.

    Raises:
        ConfigError: see :func:`seedpo.metrics.catalogue.features_entry`.
        DataError: if the weights cannot be loaded.
    """
    entry, place = features_entry(name)
    extractor: Features = load_features(entry.name, place).to(device)
    return extractor


def load_features(name: str, place: str | None = None) -> Any:
    """The extractor of a kind of features, loaded once per process and place.

    Raises:
        ConfigError: if there is none of this name.
        DataError: if the weights cannot be loaded.
    """
    loader = FEATURES.load(name)
    # The loaders cache by their arguments: nothing and `None` would load two networks.
    return loader() if place is None else loader(place)


@dataclass(frozen=True)
class FeaturesOf:
    """Features of samples, computed once for all the metrics that look at them: equal for one name and place.

    Attributes:
        features: name of the features.
        place: of their weights; `None` for the default place.
    """

    features: str
    place: str | None

    def __call__(self, samples: Samples) -> Tensor:
        """Features (P, K, D) float32; the network is loaded at the first call, onto the GPU if there is one."""
        extractor = load_features(self.features, self.place)
        if torch.cuda.is_available():
            extractor.to(torch.device("cuda", torch.cuda.current_device()))
        images, _ = samples.flat()
        features: Tensor = extractor(images)
        return features.view(*samples.images.shape[:2], -1)
