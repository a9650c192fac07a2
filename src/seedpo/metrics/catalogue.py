"""Every metric and every kind of image features, one row each. Nothing heavy is imported before one is used.

A metric enters with one function and one row here; the row holds all facts, and tables, reports and alarms read them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from seedpo.errors import ConfigError
from seedpo.registry import Entry, Registry, unknown
from seedpo.rewards.catalogue import DRAWING, OURS

Direction = Literal["higher", "lower", "neither"]
"""Which values of a metric are better; image statistics are neither good nor bad."""

Family = Literal["truth", "quality", "diversity", "statistics"]
"""What a metric is about: the true utility that a reward stands for, image quality, diversity, or plain statistics."""


@dataclass(frozen=True, kw_only=True)
class FeaturesEntry(Entry):
    """One kind of image features; its target returns the extractor, and takes the place of its weights if it has one.

    Attributes:
        width: how many numbers describe an image.
        licence: of the weights, as far as their publishers state it.
        size: of the download; `None` if there is none.
        source: paper or repository that describes it.
        place: default place of its weights on the hub; `None` if it has none that could be elsewhere.
    """

    width: str
    licence: str
    size: str | None = None
    source: str
    place: str | None = None


@dataclass(frozen=True, kw_only=True)
class MetricEntry(Entry):
    """All facts about one metric.

    The target is a function. It takes :class:`~seedpo.metrics.records.Samples` and returns one value per prompt, (P,).
    With ``features`` it takes their vectors, (P, K, D), instead. With ``reference`` it takes the features of the images
    (N, D) and of the reference set (M, D), and returns one value, ().

    Attributes:
        unit: of its values.
        span: in which its values lie.
        direction: which values are better.
        family: what it is about.
        source: paper that defines it.
        features: what it looks at, by name; `None` if at the images themselves.
        reference: whether it compares all images with a reference set, instead of those of one prompt with each other.
        least_images: images per prompt (with ``reference``: in each of the two sets) below which its value is NaN.
        finish: applied to the mean over prompts; `None` leaves the mean as it is.
        per_image: ``module:function`` of a metric with ``reference`` that is a mean over images: the share of each
            image, (N,), from which its interval is computed. `None` if it is not such a mean.
    """

    unit: str
    span: str
    direction: Direction = "higher"
    family: Family
    source: str
    features: str | None = None
    reference: bool = False
    least_images: int = 1
    finish: Callable[[float], float] | None = None
    per_image: str | None = None


def _for_each(features: Sequence[str], row: MetricEntry) -> tuple[MetricEntry, ...]:
    """The same metric on several kinds of features; ``{}`` in name and summary stands for theirs."""
    return tuple(
        replace(row, name=row.name.format(each.replace("-", "_")), summary=row.summary.format(each), features=each)
        for each in features
    )


_NETWORKS = ("clip", "dino", "scenes-clip")

FEATURES = Registry(
    "image features",
    (
        FeaturesEntry(
            name="pixels",
            target="seedpo.metrics.features.pixels:pixels",
            summary="the image averaged down to 32 x 32 pixels",
            width="3072",
            licence=OURS,
            source="docs/metrics.md",
        ),
        FeaturesEntry(
            name="clip",
            target="seedpo.metrics.features.clip:clip",
            summary="embedding by OpenAI's CLIP-L/14, of length 1: what is shown",
            width="768",
            licence="see its model card",
            size="about 1.7 GB",
            source="arXiv 2103.00020",
            place="openai/clip-vit-large-patch14",
        ),
        FeaturesEntry(
            name="dino",
            target="seedpo.metrics.features.dino:dino",
            summary="class token of DINOv2-S/14, which learned from images alone: what it looks like",
            width="384",
            licence="see its model card",
            size="about 90 MB",
            source="arXiv 2304.07193",
            place="facebook/dinov2-small",
        ),
        FeaturesEntry(
            name="scenes-clip",
            target="seedpo.scenes.shipped:scenes_clip",
            summary="embedding by the small CLIP of the embedded world, of length 1; ships with the package",
            width="64",
            licence=OURS,
            source="docs/embedded-world.md",
        ),
    ),
)

METRICS = Registry(
    "metric",
    (
        MetricEntry(
            name="truth",
            target="seedpo.scenes.metrics:mean_truth",
            summary="true utility of the simulated annotator",
            image_size=DRAWING,
            unit="utility of the simulated annotator",
            span="at most 3",
            family="truth",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="attribute_accuracy",
            target="seedpo.scenes.metrics:share_correct",
            summary="share of images with every named attribute right",
            image_size=DRAWING,
            unit="share of images",
            span="[0, 1]",
            family="quality",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="residual",
            target="seedpo.scenes.metrics:mean_residual",
            summary="distance to the nearest legitimate drawing of the prompt",
            image_size=DRAWING,
            unit="RMS pixel difference",
            span="[0, 1]",
            direction="lower",
            family="quality",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="free_spread",
            target="seedpo.scenes.metrics:mean_free_variance",
            summary="spread of what the prompt leaves open, relative to the data",
            image_size=DRAWING,
            unit="standard deviation relative to the data",
            span="at least 0",
            family="diversity",
            source="docs/embedded-world.md",
            least_images=2,
            finish=math.sqrt,
        ),
        MetricEntry(
            name="free_spread_right",
            target="seedpo.scenes.metrics:mean_right_variance",
            summary="the same over images with every named attribute right: faults, which spread too, do not count",
            image_size=DRAWING,
            unit="standard deviation relative to the data",
            span="at least 0",
            family="diversity",
            source="docs/embedded-world.md",
            least_images=2,
            finish=math.sqrt,
        ),
        MetricEntry(
            name="pairwise_diversity",
            target="seedpo.metrics.diversity:mean_pairwise_distance",
            summary="mean pixel distance between images of one prompt",
            unit="RMS pixel difference",
            span="[0, 1]",
            family="diversity",
            source="docs/metrics.md",
            least_images=2,
        ),
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="{}_diversity",
                target="seedpo.metrics.diversity:mean_cosine_distance",
                summary="mean {} distance between images of one prompt",
                unit="cosine distance",
                span="[0, 2]",
                family="diversity",
                source="docs/metrics.md",
                least_images=2,
            ),
        ),
        *_for_each(
            ("pixels", *_NETWORKS),
            MetricEntry(
                name="vendi_{}",
                target="seedpo.metrics.diversity:vendi_score",
                summary="Vendi score: effective number of different images of one prompt by {}",
                unit="images",
                span="[1, K]",
                family="diversity",
                source="arXiv 2210.02410",
            ),
        ),
        *_for_each(
            ("clip", "scenes-clip"),
            MetricEntry(
                name="tce_{}",
                target="seedpo.metrics.diversity:truncated_entropy",
                summary="truncated entropy of the {} features of one prompt's images; same K only",
                unit="nats",
                span="any",
                family="diversity",
                source="arXiv 2403.13826",
                least_images=2,
            ),
        ),
        MetricEntry(
            name="image_entropy",
            target="seedpo.metrics.statistics:mean_entropy",
            summary="Shannon entropy of an image's luminance histogram (256 levels)",
            unit="bits",
            span="[0, 8]",
            direction="neither",
            family="statistics",
            source="docs/metrics.md",
        ),
        MetricEntry(
            name="rms_contrast",
            target="seedpo.metrics.statistics:mean_contrast",
            summary="standard deviation of an image's luminance",
            unit="luminance",
            span="[0, 0.5]",
            direction="neither",
            family="statistics",
            source="Peli 1990",
        ),
        MetricEntry(
            name="colourfulness",
            target="seedpo.metrics.statistics:mean_colourfulness",
            summary="how colourful people find an image; 0: grey, 109: extremely",
            unit="Hasler and Suesstrunk's M",
            span="at least 0",
            direction="neither",
            family="statistics",
            source="Hasler and Suesstrunk 2003",
        ),
        MetricEntry(
            name="edge_density",
            target="seedpo.metrics.statistics:mean_edge_share",
            summary="share of pixels whose luminance changes by more than 0.1 per pixel (Sobel)",
            unit="share of pixels",
            span="[0, 1]",
            direction="neither",
            family="statistics",
            source="docs/metrics.md",
        ),
    ),
)
"""What is measured on the images of each prompt."""

SET_METRICS = Registry(
    "set metric",
    (
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="precision_{}",
                target="seedpo.metrics.sets:precision",
                per_image="seedpo.metrics.sets:precision_per_image",
                summary="share of images among the reference set's (k = 3) by {}: fidelity",
                unit="share of images",
                span="[0, 1]",
                family="quality",
                source="arXiv 1904.06991",
                reference=True,
                least_images=4,
            ),
        ),
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="recall_{}",
                target="seedpo.metrics.sets:recall",
                summary="share of the reference set among the images (k = 3) by {}: diversity",
                unit="share of the reference set",
                span="[0, 1]",
                family="diversity",
                source="arXiv 1904.06991",
                reference=True,
                least_images=4,
            ),
        ),
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="density_{}",
                target="seedpo.metrics.sets:density",
                per_image="seedpo.metrics.sets:density_per_image",
                summary="reference neighbourhoods around an image (k = 5) by {}: fidelity",
                unit="neighbourhoods / k",
                span="at least 0",
                family="quality",
                source="arXiv 2002.09797",
                reference=True,
                least_images=6,
            ),
        ),
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="coverage_{}",
                target="seedpo.metrics.sets:coverage",
                summary="share of the reference set with an image near (k = 5) by {}: diversity",
                unit="share of the reference set",
                span="[0, 1]",
                family="diversity",
                source="arXiv 2002.09797",
                reference=True,
                least_images=6,
            ),
        ),
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="fd_{}",
                target="seedpo.metrics.sets:frechet_distance",
                summary="Frechet distance between images and reference set by {}; same counts only",
                unit="squared distance",
                span="at least 0",
                direction="lower",
                family="quality",
                source="arXiv 1706.08500",
                reference=True,
                least_images=2,
            ),
        ),
        *_for_each(
            _NETWORKS,
            MetricEntry(
                name="kid_{}",
                target="seedpo.metrics.sets:kernel_distance",
                summary="kernel distance between images and reference set by {}; unbiased",
                unit="squared MMD",
                span="about 0 and above",
                direction="lower",
                family="quality",
                source="arXiv 1801.01401",
                reference=True,
                least_images=2,
            ),
        ),
    ),
)
"""What is measured on all images together, against a reference set."""


def find_metric(name: str) -> MetricEntry | None:
    """The row of a metric's name, with or without a place after it; `None` if no such metric is registered."""
    head = name.partition("@")[0]
    return next((registry[head] for registry in (METRICS, SET_METRICS) if head in registry), None)


def features_entry(name: str) -> tuple[FeaturesEntry, str | None]:
    """The row of the name of features, and the place that follows it; nothing is loaded.

    Raises:
        ConfigError: if there are no such features, or they have no weights that could be elsewhere.
    """
    head, at, place = name.partition("@")
    if head not in FEATURES:
        raise unknown(FEATURES.kind, head, FEATURES.names())
    entry = FEATURES[head]
    if at and entry.place is None:
        raise ConfigError(f"features {name}: {head} has no weights that could be elsewhere; write {head}")
    if at and not place:
        raise ConfigError(f"features {name}: after @ stands a folder or owner/name, for example {head}@{entry.place}")
    return entry, place or None


def metric_entry(name: str) -> tuple[MetricEntry, str | None]:
    """The row of a metric's name, and the place that follows it; nothing is loaded.

    Raises:
        ConfigError: if there is no such metric, or it has no weights that could be elsewhere.
    """
    head, at, place = name.partition("@")
    entry = find_metric(head)
    if entry is None:
        raise unknown("metric", head, [*METRICS.names(), *SET_METRICS.names()])
    if not at:
        return entry, None
    default = None if entry.features is None else FEATURES[entry.features].place
    if default is None:
        raise ConfigError(f"metric {name}: {head} has no weights that could be elsewhere; write {head}")
    if not place:
        raise ConfigError(f"metric {name}: after @ stands a folder or owner/name, for example {head}@{default}")
    return entry, place
