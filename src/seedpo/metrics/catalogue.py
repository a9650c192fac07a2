"""Every metric of a prompt's images that has a name. Nothing heavy is imported before one is used."""

from __future__ import annotations

from seedpo.metrics.features.names import PROMPT_METRICS
from seedpo.registry import MetricEntry, Registry
from seedpo.rewards.catalogue import DRAWING

METRICS = Registry(
    "metric",
    (
        MetricEntry(
            name="truth",
            target="seedpo.scenes.metrics:TRUTH",
            summary="true utility of the simulated annotator",
            image_size=DRAWING,
            unit="utility of the simulated annotator",
            span="at most 3",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="attribute_accuracy",
            target="seedpo.scenes.metrics:ATTRIBUTE_ACCURACY",
            summary="share of images with every named attribute right",
            image_size=DRAWING,
            unit="share of images",
            span="[0, 1]",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="residual",
            target="seedpo.scenes.metrics:RESIDUAL",
            summary="distance to the nearest legitimate drawing of the prompt",
            image_size=DRAWING,
            unit="RMS pixel difference",
            span="[0, 1]",
            direction="lower",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="free_spread",
            target="seedpo.scenes.metrics:FREE_SPREAD",
            summary="spread of what the prompt leaves open, relative to the data",
            image_size=DRAWING,
            unit="standard deviation relative to the data",
            span="at least 0",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="free_spread_right",
            target="seedpo.scenes.metrics:RIGHT_SPREAD",
            summary="the same over images with every named attribute right: faults, which spread too, do not count",
            image_size=DRAWING,
            unit="standard deviation relative to the data",
            span="at least 0",
            direction="higher",
            source="docs/embedded-world.md",
        ),
        MetricEntry(
            name="pairwise_diversity",
            target="seedpo.metrics.pairwise:PAIRWISE_DIVERSITY",
            summary="mean pixel distance between images of one prompt",
            unit="RMS pixel difference",
            span="[0, 1]",
            direction="higher",
            source="docs/metrics.md",
        ),
        *PROMPT_METRICS,
        MetricEntry(
            name="image_entropy",
            target="seedpo.metrics.statistics:IMAGE_ENTROPY",
            summary="Shannon entropy of an image's luminance histogram (256 levels)",
            unit="bits",
            span="[0, 8]",
            direction="neither",
            source="docs/metrics.md",
        ),
        MetricEntry(
            name="rms_contrast",
            target="seedpo.metrics.statistics:RMS_CONTRAST",
            summary="standard deviation of an image's luminance",
            unit="luminance",
            span="[0, 0.5]",
            direction="neither",
            source="Peli 1990",
        ),
        MetricEntry(
            name="colourfulness",
            target="seedpo.metrics.statistics:COLOURFULNESS",
            summary="how colourful people find an image; 0: grey, 109: extremely",
            unit="Hasler and Suesstrunk's M",
            span="at least 0",
            direction="neither",
            source="Hasler and Suesstrunk 2003",
        ),
        MetricEntry(
            name="edge_density",
            target="seedpo.metrics.statistics:EDGE_DENSITY",
            summary="share of pixels whose luminance changes by more than 0.1 per pixel (Sobel)",
            unit="share of pixels",
            span="[0, 1]",
            direction="neither",
            source="docs/metrics.md",
        ),
    ),
)
