"""How well images compress: the rewards of DDPO (arXiv 2305.13301) and D3PO (arXiv 2311.13231) that need no model.

The score is the size of the image as a JPEG file of quality 95, in kB of 1000 bytes; the prompt is not used. The
published figures are for 512 px, and sizes grow with the number of pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from seedpo.protocols import Images, Reward
from seedpo.rewards.scoring import score_in_batches

QUALITY = 95
"""Of the JPEG file, as published."""


def jpeg_sizes(images: Images, prompts: Sequence[str]) -> Tensor:
    """Sizes of images as JPEG files.

    Args:
        images: (B, 3, H, W) in [0, 1], or B PIL images of any sizes.
        prompts: B prompts, of which only the number counts.

    Returns:
        Sizes in kB, (B,) float32 on the images' device; on the CPU for PIL images.

    Raises:
        DataError: if the counts differ, or an element is not an image.
    """
    sizes = score_in_batches(images, prompts, _sizes_of_bytes, device="cpu")
    return sizes.to(images.device) if isinstance(images, Tensor) else sizes


def compressibility() -> Reward:
    """The reward that is higher for smaller files: minus their size in kB."""
    return lambda images, prompts: -jpeg_sizes(images, prompts)


def incompressibility() -> Reward:
    """The reward that is higher for larger files: their size in kB."""
    return jpeg_sizes


def _sizes_of_bytes(images: Tensor, _prompts: Sequence[str]) -> Tensor:
    sizes = []
    for pixels in images.permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=QUALITY)
        sizes.append(file.tell() / 1000.0)
    return torch.tensor(sizes, dtype=torch.float32)
