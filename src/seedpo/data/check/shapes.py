"""Sizes and shapes of a set's images, and what each resolution would cut away and enlarge."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seedpo.data.images.buckets import STEP, Size, bucket_sizes, cropped_share, nearest_bucket
from seedpo.data.pairs.sets import OpenedPair

RESOLUTIONS = (512, 768, 1024)
"""Resolutions that are tried: those that Stable Diffusion 1.5, 2 and XL were made for."""

FEW = 0.05
"""Share of the images that may be enlarged where a resolution is said to fit."""

MUCH = 0.1
"""Mean share cut away of squares above which buckets are advised."""

RATIOS = ("1:3", "1:2", "9:16", "2:3", "3:4", "4:5", "1:1", "5:4", "4:3", "3:2", "16:9", "2:1", "3:1")
"""Usual aspect ratios, width to height; each image counts for the nearest."""

_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@dataclass(frozen=True, kw_only=True)
class Crop:
    """What becomes of all images at one resolution.

    Attributes:
        resolution: side of the square in pixels.
        buckets: whether each pair takes the nearest of the buckets, or every image the square.
        mean, most: share of an image that is cut away, on average and at most.
        quantile: share that is cut away of 95 % of the images at most.
        enlarged: share of the images that are enlarged.
    """

    resolution: int
    buckets: bool
    mean: float
    quantile: float
    most: float
    enlarged: float


@dataclass
class Shapes:
    """Sizes of the images of a set.

    Attributes:
        pairs: pairs by the height and width of their images; likes have one.
    """

    pairs: Counter[tuple[Size, ...]] = field(default_factory=Counter)

    def add(self, pair: OpenedPair) -> None:
        """Counts the images of a pair."""
        self.pairs[tuple((image.height, image.width) for image in pair.images)] += 1

    @property
    def sizes(self) -> Counter[Size]:
        """Images of each height and width."""
        sizes: Counter[Size] = Counter()
        for images, count in self.pairs.items():
            for image in images:
                sizes[image] += count
        return sizes

    @property
    def different_sizes(self) -> int:
        """Pairs whose two images differ in size."""
        return sum(count for images, count in self.pairs.items() if len(set(images)) > 1)

    @property
    def shorter_sides(self) -> Mapping[str, int]:
        """Quantiles of the images' shorter sides, in pixels; none without images."""
        sizes = self.sizes
        sides = np.repeat([min(size) for size in sizes], list(sizes.values()))
        if not len(sides):
            return {}
        return {name: int(np.quantile(sides, share, method="nearest")) for name, share in _QUANTILES.items()}

    @property
    def ratios(self) -> Mapping[str, int]:
        """Images of each usual aspect ratio, from tall to wide; those that occur."""
        logs = {name: math.log(int(name.partition(":")[0]) / int(name.partition(":")[2])) for name in RATIOS}
        counts: Counter[str] = Counter()
        for (height, width), count in self.sizes.items():
            counts[min(RATIOS, key=lambda name: abs(logs[name] - math.log(width / height)))] += count
        return {name: counts[name] for name in RATIOS if counts[name]}

    def crops(self, resolution: int | None) -> list[Crop]:
        """What :data:`RESOLUTIONS` and the configured one would cut away, as squares and in buckets.

        Where all images would be enlarged at the smallest of them, the configured one alone is tried.

        Args:
            resolution: that of the run; ``None``: none.
        """
        if not self.pairs:
            return []
        usual = RESOLUTIONS if self.shorter_sides["most"] >= RESOLUTIONS[0] else ()
        tried = sorted({*usual, *([] if resolution is None else [resolution])})
        return [
            self._crop(value, buckets)
            for value in tried
            for buckets in (False, True)
            if not buckets or value % STEP == 0
        ]

    def _crop(self, resolution: int, buckets: bool) -> Crop:
        choices = bucket_sizes(resolution) if buckets else [(resolution, resolution)]
        shares, enlarged, counts = [], [], []
        for images, count in self.pairs.items():
            wanted = nearest_bucket(images, choices)
            shares += [cropped_share(image, wanted) for image in images]
            enlarged += [image[0] < wanted[0] or image[1] < wanted[1] for image in images]
            counts += [count] * len(images)
        weights = np.array(counts)
        return Crop(
            resolution=resolution,
            buckets=buckets,
            mean=float(np.average(shares, weights=weights)),
            quantile=_weighted_quantile(np.array(shares), weights, 0.95),
            most=max(shares),
            enlarged=float(np.average(enlarged, weights=weights)),
        )

    def advice(self) -> str:
        """Which resolution fits, in one sentence; empty without images."""
        if not self.pairs:
            return ""
        sizes = self.sizes
        if len(sizes) == 1 and next(iter(sizes)) not in {(side, side) for side in RESOLUTIONS}:
            height, width = next(iter(sizes))
            if height == width and height < RESOLUTIONS[0]:
                return f"All images are {width} x {height} pixels: no resolution is needed for a model of this size."
        shown = [self._better(resolution) for resolution in RESOLUTIONS]
        fitting = [crop for crop in shown if crop.enlarged <= FEW]
        if not fitting:
            enlarged = f"{shown[0].enlarged:.1%} of the images are enlarged even at {RESOLUTIONS[0]}"
            return f"No usual resolution fits: {enlarged}."
        crop = fitting[-1]
        setting = f"--set pairs.resolution={crop.resolution}" + (" --set pairs.buckets=true" if crop.buckets else "")
        return (
            f"Fitting: {setting}; {crop.mean:.1%} of an image is cut away on average, and {crop.enlarged:.1%} of the "
            "images are enlarged."
        )

    def _better(self, resolution: int) -> Crop:
        """In buckets where the square would cut much away."""
        square = self._crop(resolution, buckets=False)
        bucketed = self._crop(resolution, buckets=True)
        return bucketed if square.mean > MUCH and bucketed.mean < square.mean else square


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.int64], share: float) -> float:
    """The least value that at least this share of the weights does not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) >= share * weights.sum()
    return float(values[order][reached.argmax()])
