"""Aspect-ratio buckets: sizes of about the same area, of which each pair takes the one nearest to its own shape.

As NovelAI did it (https://blog.novelai.net/novelai-improvements-on-stable-diffusion-e10d38db82ac) and SDXL after it
(arXiv 2307.01952, appendix I): all sides are multiples of 64 and no area is above that of the square. Here both images
of a pair are in one bucket, whose shape is nearest to the geometric mean of their aspect ratios.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from seedpo.data.images.rgb import size_of_file

STEP = 64
"""Sides are multiples of it: 8 pixels a latent, and three halvings of latents in a network."""

MAX_ASPECT = 2.0
"""Longest side of a bucket over its shorter one."""

Size = tuple[int, int]
"""Height and width in pixels."""


@runtime_checkable
class BucketedPairs(Protocol):
    """A set of pairs that may be of several sizes."""

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of each pair's images; ``None``: one size for all."""


def buckets_of(pairs: object) -> Sequence[Size] | None:
    """Height and width of the images of each pair of a set; ``None``: one size for all."""
    return pairs.buckets() if isinstance(pairs, BucketedPairs) else None


def bucket_sizes(resolution: int) -> list[Size]:
    """Sizes that images are brought to: for each height the largest width within the area, and the other way round.

    Args:
        resolution: side of the square, a multiple of :data:`STEP`.

    Returns:
        Heights and widths within :data:`MAX_ASPECT`, the flattest first; the square is among them.
    """
    sizes = set()
    for side in range(STEP, int(MAX_ASPECT * resolution) + 1, STEP):
        other = resolution**2 // side // STEP * STEP
        if other and max(side, other) <= MAX_ASPECT * min(side, other):
            sizes |= {(side, other), (other, side)}
    return sorted(sizes)


def nearest_bucket(images: Sequence[Size], sizes: Sequence[Size]) -> Size:
    """The size whose aspect ratio is nearest to the images' geometric mean, by the ratio of both; ties: the flattest.

    Args:
        images: height and width of each image of a pair.
        sizes: those to choose from.
    """
    wanted = sum(math.log(width / height) for height, width in images) / len(images)
    return min(sizes, key=lambda size: (round(abs(math.log(size[1] / size[0]) - wanted), 12), size))


def stored_size(file: bytes) -> Size:
    """Height and width of an image file as it stands upright; only its head is decoded.

    Raises:
        DataError: if it is no image; the message says why, and the caller adds where.
    """
    width, height = size_of_file(file)
    return height, width


def cropped_share(image: Size, bucket: Size) -> float:
    """Share of an image's area that lies outside its bucket, 0 to 1."""
    scale = max(bucket[0] / image[0], bucket[1] / image[1])
    return max(0.0, 1.0 - bucket[0] * bucket[1] / (image[0] * image[1] * scale**2))


def grouped(rows: Iterable[int], buckets: Sequence[Size] | None, *, size: int) -> list[list[int]]:
    """Rows in batches of at most ``size``, each of one bucket, in the order of the buckets' first rows."""
    by_bucket: dict[Size | None, list[int]] = {}
    for row in rows:
        by_bucket.setdefault(None if buckets is None else buckets[row], []).append(row)
    return [group[start : start + size] for group in by_bucket.values() for start in range(0, len(group), size)]
