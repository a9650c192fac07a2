"""Between images as PIL holds them and tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def to_pil(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [0, 1] as a PIL image of 8 bits."""
    return Image.fromarray((image.permute(1, 2, 0) * 255.0).round().byte().contiguous().numpy())


def to_tensor(image: Image.Image | NDArray[np.uint8]) -> Tensor:
    """Pixels (3, H, W) in [0, 1] of an RGB image."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0).permute(2, 0, 1)
