"""How well images compress: the rewards of DDPO (arXiv 2305.13301) and D3PO (arXiv 2311.13231) that need no model.

The score is the size of the image as a JPEG file of quality 95, in kB of 1000 bytes; the prompt plays no part. The
published figures are for 512 px, and sizes grow with the number of pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

QUALITY = 95
"""Of the JPEG file, as published."""


def jpeg_sizes(images: Tensor) -> Tensor:
    """Sizes in kB, (B,) float32 on the images' device, of images (B, 3, H, W) in [0, 1]."""
    pixels = (images.detach().float() * 255.0).round().clamp(0.0, 255.0).byte().permute(0, 2, 3, 1).cpu().numpy()
    sizes = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=QUALITY)
        sizes.append(file.tell() / 1000.0)
    return torch.tensor(sizes, dtype=torch.float32, device=images.device)


def compressibility() -> Callable[[Tensor, Sequence[str]], Tensor]:
    """The reward that is higher for smaller files: minus their size in kB."""
    return lambda images, prompts: -jpeg_sizes(images)


def incompressibility() -> Callable[[Tensor, Sequence[str]], Tensor]:
    """The reward that is higher for larger files: their size in kB."""
    return lambda images, prompts: jpeg_sizes(images)
