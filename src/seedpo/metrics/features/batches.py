"""What all features share: images of any size go in as bytes, batch by batch, and one vector each comes out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seedpo.errors import DataError
from seedpo.protocols import Images
from seedpo.rewards.scoring import BATCH_SIZE, byte_batches


@torch.no_grad()
def features_in_batches(
    images: Images,
    embed: Callable[[Tensor], Tensor],
    *,
    name: str,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str,
) -> Tensor:
    """Embeds images of any sizes, those of one size together.

    Images in [0, 1] are rounded to bytes first: an image and the file that stores it give the same vector.

    Args:
        images: (B, 3, H, W) in [0, 1], or B images as PIL holds them.
        embed: takes images (b, 3, H, W) uint8 on ``device`` and returns vectors (b, D).
        name: of the features, for errors.
        batch_size: the largest b.
        device: where ``embed`` expects images.

    Returns:
        (B, D) float32 on the CPU, in the order of the images.

    Raises:
        DataError: if there are no images, one is not an image, or a vector is not finite; the message names the row.
    """
    if len(images) == 0:
        raise DataError(f"features {name}: there are no images to look at; pass one or more")
    vectors: Tensor | None = None
    for rows, pixels in byte_batches(images, batch_size=batch_size, device=device):
        batch = embed(pixels).float().cpu()
        if vectors is None:
            vectors = batch.new_empty(len(images), batch.shape[1])
        vectors[rows] = batch
    assert vectors is not None  # byte_batches returns every row
    broken = (~torch.isfinite(vectors).all(1)).nonzero()
    if len(broken):
        raise DataError(
            f"features {name}: those of image {int(broken[0])} are not finite; compute in float32, or copy the weights "
            "again"
        )
    return vectors
