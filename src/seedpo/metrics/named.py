"""Metrics by the names that users write.

A name is one of these::

    clip_diversity               registered; `seedpo list metrics` and `seedpo list set-metrics` show them
    clip_diversity@models/clip   the same, the weights of its features elsewhere: a folder, or owner/name on the hub
"""

from __future__ import annotations

import torch

from seedpo.errors import ConfigError
from seedpo.metrics.catalogue import METRICS
from seedpo.metrics.features.names import FEATURES, SET_METRICS, load_features
from seedpo.protocols import Features, Metric, SetMetric
from seedpo.registry import FeaturesEntry, MetricEntry, unknown


def metric_entry(name: str) -> tuple[MetricEntry, str | None]:
    """What is registered under a name, and the place that follows it; nothing is loaded.

    Raises:
        ConfigError: if there is no such metric, or it has no weights that could be elsewhere.
    """
    head, at, place = name.partition("@")
    registry = next((each for each in (METRICS, SET_METRICS) if head in each), None)
    if registry is None:
        raise unknown("metric", head, [*METRICS.names(), *SET_METRICS.names()])
    entry = registry[head]
    assert isinstance(entry, MetricEntry)  # what the catalogue holds
    if not at:
        return entry, None
    features = None if entry.features is None else FEATURES[entry.features]
    default = features.place if isinstance(features, FeaturesEntry) else None
    if default is None:
        raise ConfigError(f"metric {name}: {head} has no weights that could be elsewhere; write {head}")
    if not place:
        raise ConfigError(f"metric {name}: after @ stands a folder or owner/name, for example {head}@{default}")
    return entry, place


def build_metric(name: str) -> Metric | SetMetric:
    """The metric of a name; the network behind its features is loaded when it first measures.

    Raises:
        ConfigError: see :func:`metric_entry`.
    """
    entry, place = metric_entry(name)
    found: Metric | SetMetric = entry.load(place)
    return found


def build_prompt_metric(name: str) -> Metric:
    """The metric of a name, if it is measured on the images of each prompt.

    Raises:
        ConfigError: if it compares all images with a reference set, or see :func:`metric_entry`.
    """
    metric = build_metric(name)
    if isinstance(metric, SetMetric):
        raise ConfigError(f"metric {name} needs a reference set, which evaluations of a run have not; leave it out")
    return metric


def build_features(name: str, *, device: torch.device | str | None = None) -> Features | None:
    """What makes the features that a metric looks at, loaded once per process and place; none: it looks at images.

    Args:
        name: of the metric, as the user wrote it.
        device: where its network is to be; none: where it is.

    Raises:
        ConfigError: see :func:`metric_entry`.
        DataError: if the weights cannot be had.
    """
    entry, place = metric_entry(name)
    if entry.features is None:
        return None
    extractor = load_features(entry.features, place)
    found: Features = extractor if device is None else extractor.to(device)
    return found
