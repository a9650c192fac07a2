"""The originals' preparation of one image, with PIL and numpy: what batches on any device are compared with."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


def picture(height: int, width: int, *, seed: int) -> Image.Image:
    """An image of noise with hard edges, where resampling overshoots."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = generator.choice(np.array([0, 255], dtype=np.uint8), size=3)
    return Image.fromarray(pixels)


def as_tensor(images: list[Image.Image]) -> Tensor:
    """(B, 3, H, W) uint8."""
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def clip_crop(image: Image.Image, size: int, crop: Literal["transformers", "torchvision"]) -> NDArray[np.uint8]:
    """Shorter side resized, middle cut out: (size, size, 3) bytes."""
    width, height = image.size
    short = min(width, height)
    wanted = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    resized = image.convert("RGB").resize(wanted, Image.Resampling.BICUBIC) if short != size else image.convert("RGB")
    left, top = ((length - size) / 2 for length in resized.size)
    whole = math.floor if crop == "transformers" else round  # torchvision: int(round(...)), half to even
    box = (whole(left), whole(top), whole(left) + size, whole(top) + size)
    return np.asarray(resized.crop(box))


def clip_values(image: Image.Image, size: int, crop: Literal["transformers", "torchvision"]) -> Tensor:
    """As CLIP is shown it: (3, size, size) float64."""
    return normalised(clip_crop(image, size, crop) / 255.0)


def hps_values(image: Image.Image, size: int) -> Tensor:
    """As HPSv2 is shown it: (3, size, size) float64."""
    values = np.asarray(image.convert("RGB")) / 255.0
    height, width = values.shape[:2]
    if max(height, width) != size:
        scale = size / max(height, width)
        tall, wide = round(height * scale), round(width * scale)
        values = np.einsum("yh,hwc,xw->yxc", cubic(height, tall), values, cubic(width, wide), optimize=True)
    padded = np.zeros((size, size, 3))
    top, left = (size - values.shape[0]) // 2, (size - values.shape[1]) // 2
    padded[top : top + values.shape[0], left : left + values.shape[1]] = values
    return normalised(padded)


def cubic(old: int, new: int) -> NDArray[np.float64]:
    """Weights (new, old) of antialiased bicubic resampling."""
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    distance = np.abs(np.arange(old)[None] + 0.5 - centres[:, None]) / scale
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1.0
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4.0 * distance + 2.0
    weights = np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


def normalised(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(((values - MEAN) / STD).transpose(2, 0, 1).copy())
