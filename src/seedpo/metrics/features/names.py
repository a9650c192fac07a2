"""The registered image features and the metrics that look at them, as text: nothing heavy is imported before use."""

from __future__ import annotations

from typing import Any, Literal

from seedpo.registry import FeaturesEntry, MetricEntry, Registry

FEATURES = Registry(
    "image features",
    (
        FeaturesEntry(
            name="pixels",
            target="seedpo.metrics.features.pixels:pixels",
            summary="the image averaged down to 32 x 32 pixels",
            width="3072",
            licence="Apache-2.0, as seedpo",
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
            licence="Apache-2.0, as seedpo",
            source="docs/embedded-world.md",
        ),
    ),
)


def load_features(name: str, place: str | None = None) -> Any:
    """What makes the features of a name, loaded once per process and place.

    Raises:
        ConfigError: if there are none of this name.
        DataError: if the weights cannot be had.
    """
    loader = FEATURES.load(name)
    # The loaders remember what they were called with: nothing and None would be two networks.
    return loader() if place is None else loader(place)


_NETWORKS = ("clip", "dino", "scenes-clip")


def _family(
    maker: str,
    pattern: str,
    features: tuple[str, ...],
    *,
    summary: str,
    unit: str,
    span: str,
    source: str,
    direction: Literal["higher", "lower"] = "higher",
    reference: bool = False,
) -> tuple[MetricEntry, ...]:
    """One metric for each of several features; ``{}`` in pattern and summary stands for their name."""
    return tuple(
        MetricEntry(
            name=pattern.format(name.replace("-", "_")),
            target=f"seedpo.metrics.features.metrics:{maker}",
            summary=summary.format(name),
            unit=unit,
            span=span,
            direction=direction,
            source=source,
            features=name,
            reference=reference,
        )
        for name in features
    )


PROMPT_METRICS: tuple[MetricEntry, ...] = (
    *_family(
        "diversity",
        "{}_diversity",
        _NETWORKS,
        summary="mean {} distance between images of one prompt",
        unit="cosine distance",
        span="[0, 2]",
        source="docs/metrics.md",
    ),
    *_family(
        "vendi",
        "vendi_{}",
        ("pixels", *_NETWORKS),
        summary="Vendi score: effective number of different images of one prompt by {}",
        unit="images",
        span="[1, K]",
        source="arXiv 2210.02410",
    ),
    *_family(
        "tce",
        "tce_{}",
        ("clip", "scenes-clip"),
        summary="truncated entropy of the {} features of one prompt's images; same K only",
        unit="nats",
        span="any",
        source="arXiv 2403.13826",
    ),
)
"""What is measured on the images of each prompt, by their features."""

SET_METRICS = Registry(
    "set metric",
    (
        *_family(
            "precision_of",
            "precision_{}",
            _NETWORKS,
            summary="share of images among the reference set's (k = 3) by {}: fidelity",
            unit="share of images",
            span="[0, 1]",
            source="arXiv 1904.06991",
            reference=True,
        ),
        *_family(
            "recall_of",
            "recall_{}",
            _NETWORKS,
            summary="share of the reference set among the images (k = 3) by {}: diversity",
            unit="share of the reference set",
            span="[0, 1]",
            source="arXiv 1904.06991",
            reference=True,
        ),
        *_family(
            "density_of",
            "density_{}",
            _NETWORKS,
            summary="reference neighbourhoods around an image (k = 5) by {}: fidelity",
            unit="neighbourhoods / k",
            span="at least 0",
            source="arXiv 2002.09797",
            reference=True,
        ),
        *_family(
            "coverage_of",
            "coverage_{}",
            _NETWORKS,
            summary="share of the reference set with an image near (k = 5) by {}: diversity",
            unit="share of the reference set",
            span="[0, 1]",
            source="arXiv 2002.09797",
            reference=True,
        ),
        *_family(
            "fd",
            "fd_{}",
            _NETWORKS,
            summary="Frechet distance between images and reference set by {}; same counts only",
            unit="squared distance",
            span="at least 0",
            direction="lower",
            source="arXiv 1706.08500",
            reference=True,
        ),
        *_family(
            "kid",
            "kid_{}",
            _NETWORKS,
            summary="kernel distance between images and reference set by {}; unbiased",
            unit="squared MMD",
            span="about 0 and above",
            direction="lower",
            source="arXiv 1801.01401",
            reference=True,
        ),
    ),
)
"""What is measured on all images together, against a reference set."""
