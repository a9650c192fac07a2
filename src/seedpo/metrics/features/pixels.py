"""The image itself, scaled down."""

from __future__ import annotations

from functools import cache
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from seedpo.metrics.features.batches import features_in_batches
from seedpo.protocols import Images

SIDE = 32
"""Height and width, in pixels, to which an image is averaged."""


class PixelFeatures:
    """The means of 32 x 32 areas of the image for each channel, (B, 3072) in [0, 1], channels first, then rows.

    The areas are those of torch's ``adaptive_avg_pool2d``: area i of a side of n pixels reaches from floor(i n / 32) to
    ceil((i + 1) n / 32). So a 32 x 32 image stays as it is, and the aspect ratio of others is lost.
    """

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Stays as it is: there is no network."""
        return self

    def __call__(self, images: Images) -> Tensor:
        """Vectors (B, 3072) float32, on the CPU, of B images.

        Raises:
            DataError: if one is not an image.
        """
        return features_in_batches(images, _averaged, name="pixels", device="cpu")


@cache
def pixels(place: str | None = None) -> PixelFeatures:
    """The image averaged down to 32 x 32 pixels; without weights, so the place is ignored."""
    return PixelFeatures()


def _averaged(images: Tensor) -> Tensor:
    return adaptive_avg_pool2d(images.float() / 255.0, SIDE).flatten(1)
