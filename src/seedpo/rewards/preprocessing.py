"""Images as the published scorers prepare them, in batches and on any device.

The originals resize one PIL image after another; all but HPSv2, which resizes floats. Here the result is Pillow's bit
for bit on every device: on the CPU, Pillow does it, which is the fastest; elsewhere, whole batches are resampled with
Pillow's fixed-point coefficients.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Crop = Literal["transformers", "torchvision"]

_SUPPORT = 2.0
"""Of the bicubic filter, in pixels of the coarser image."""

_FRACTION_BITS = 22
"""Of Pillow's fixed-point coefficients for images of 8 bits: 32 - 8 - 2."""


def pil_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic resampling as Pillow does it, equal bit for bit: the width first, rounded to bytes, then the height.

    (Pillow 13 resizes the height first where that is less work, which resizing that keeps the proportions never is, but
    HPSv3's can be; earlier ones, with which the scorers were published, never do.)

    Args:
        images: (B, 3, H, W) uint8.
        size: wanted height and width, in pixels.

    Returns:
        (B, 3, *size) uint8, on the images' device.
    """
    if images.shape[-2:] == size:
        return images
    return _resized_by_pillow(images, size) if images.device.type == "cpu" else resize_by_taps(images, size)


def resize_by_taps(images: Tensor, size: tuple[int, int]) -> Tensor:
    """:func:`pil_resize` in integer arithmetic on whole batches, for any device."""
    height, width = size
    if images.shape[-1] != width:
        images = _resampled(images.transpose(-1, -2), width).transpose(-1, -2)
    if images.shape[-2] != height:
        images = _resampled(images, height)
    return images.contiguous()


def clip_pixels(
    images: Tensor,
    size: int,
    *,
    crop: Crop,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> Tensor:
    """Images as CLIP sees them: shorter side resized, centre cropped, normalised.

    Args:
        images: (B, 3, H, W) uint8.
        size: height and width of the result, in pixels.
        crop: whose rounding the centre has if it lies between two pixels: ``transformers`` (CLIPImageProcessor)
            rounds down, ``torchvision`` (OpenAI's and open_clip's CLIP, ImageReward) to the nearest even number.
        mean: subtracted from the channels, in [0, 1].
        std: what the channels are then divided by.

    Returns:
        (B, 3, size, size) float32.
    """
    resized = pil_resize(images, shorter_side(images.shape[-2], images.shape[-1], size))
    above, left = (_CROP_START[crop](length - size) for length in resized.shape[-2:])
    return _normalised(resized[..., above : above + size, left : left + size].float() / 255.0, mean, std)


def hps_pixels(images: Tensor, size: int) -> Tensor:
    """Images as HPSv2 sees them: longer side resized, zeros around, normalised.

    HPSv2 resizes floats, by torchvision's ``resize`` of tensors with its defaults: bicubic with antialiasing, values
    outside of [0, 1] kept. (torchvision before 0.17 did not antialias tensors, so that HPSv2 gives other scores there.)

    Args:
        images: (B, 3, H, W) uint8.
        size: height and width of the result, in pixels.

    Returns:
        (B, 3, size, size) float32.
    """
    height, width = images.shape[-2:]
    pixels = images.float() / 255.0
    if max(height, width) != size:
        scale = size / float(max(height, width))
        tall, wide = (max(1, round(length * scale)) for length in (height, width))
        pixels = interpolate(pixels, size=(tall, wide), mode="bicubic", align_corners=False, antialias=True)
    below, right = (size - length for length in pixels.shape[-2:])
    pixels = pad(pixels, (right // 2, right - right // 2, below // 2, below - below // 2))
    return _normalised(pixels, CLIP_MEAN, CLIP_STD)


def shorter_side(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side is resized to ``size``, as transformers and torchvision round."""
    short, long = sorted((height, width))
    longer = int(size * long / short)
    return (size, longer) if height <= width else (longer, size)


def qwen2_vl_size(height: int, width: int, *, area: int, factor: int) -> tuple[int, int]:
    """Height and width to which Qwen2-VL's ``smart_resize`` resizes where its least and its most pixels are equal.

    Both are multiples of ``factor``. Images whose rounded sides give more pixels than ``area`` end at or below it,
    those with fewer at or above it.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        area: wanted number of pixels.
        factor: side of the squares that become tokens, in pixels.
    """
    rounded = [max(factor, round(side / factor) * factor) for side in (height, width)]
    pixels = rounded[0] * rounded[1]
    if pixels > area:
        shrink = math.sqrt((height * width) / area)
        rounded = [math.floor(side / shrink / factor) * factor for side in (height, width)]
    elif pixels < area:
        grow = math.sqrt(area / (height * width))
        rounded = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return max(factor, rounded[0]), max(factor, rounded[1])


def qwen2_vl_patches(images: Tensor, *, patch: int, merge: int, frames: int) -> Tensor:
    """Images as Qwen2-VL's vision tower reads them: normalised, and cut into patches in the order of its merging.

    Squares of ``merge`` x ``merge`` patches stand together, row by row, since each square becomes one token::

         0  1 | 4  5
         2  3 | 6  7        merge = 2, an image of 4 x 4 patches
        ------+------
         8  9 | 12 13
        10 11 | 14 15

    Args:
        images: (B, 3, H, W) uint8; H and W are multiples of ``patch * merge``.
        patch: side of a patch, in pixels.
        merge: side of a square, in patches.
        frames: how often an image is repeated, as the tower reads videos.

    Returns:
        (B * H / patch * W / patch, 3 * frames * patch * patch) float32.
    """
    batch, channels, height, width = images.shape
    pixels = _normalised(images.float() / 255.0, CLIP_MEAN, CLIP_STD)
    rows, columns = height // (patch * merge), width // (patch * merge)
    cut = pixels.reshape(batch, channels, rows, merge, patch, columns, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    repeated = cut.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, frames, -1, -1)
    return repeated.reshape(batch * rows * columns * merge * merge, channels * frames * patch * patch)


_CROP_START = {"transformers": lambda spare: spare // 2, "torchvision": lambda spare: round(spare / 2.0)}
"""First row or column of the centre, by the number of those that are cropped."""


def _normalised(pixels: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    centre, spread = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (mean, std))
    # A layout of its own, so that convolutions round alike whether the pixels come from files or from tensors.
    return (pixels.contiguous() - centre) / spread


def _resized_by_pillow(images: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    resized = torch.empty(len(images), height, width, 3, dtype=torch.uint8)
    for row, pixels in enumerate(images.permute(0, 2, 3, 1).contiguous().numpy()):
        image = Image.fromarray(pixels).resize((width, pixels.shape[0]), Image.Resampling.BICUBIC)
        resized[row] = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC)))
    return resized.permute(0, 3, 1, 2).contiguous()


def _resampled(images: Tensor, length: int) -> Tensor:
    """Images (B, 3, H, W) uint8 with ``length`` rows: a weighted sum of a few rows for each."""
    first, weights = _taps(images.shape[-2], length)
    first, weights = first.to(images.device), weights.to(images.device)
    # Rows outermost: a row of all images is then one contiguous block.
    rows = images.permute(2, 0, 1, 3).contiguous()
    sums = torch.full((length, *rows.shape[1:]), 1 << (_FRACTION_BITS - 1), dtype=torch.int32, device=images.device)
    for tap in range(weights.shape[1]):
        # Beyond the last row the weight is 0, so that any row serves.
        chosen = rows[(first + tap).clamp(max=len(rows) - 1)]
        sums.addcmul_(chosen.int(), weights[:, tap, None, None, None])
    return (sums >> _FRACTION_BITS).clamp_(0, 255).to(torch.uint8).permute(1, 2, 0, 3)


@lru_cache(maxsize=64)
def _taps(old: int, new: int) -> tuple[Tensor, Tensor]:
    """Which rows contribute to a new row, and how much: first row (new,) int64 and weights (new, K) int32, in 2^-22.

    The arithmetic, in doubles and in this order, is that of Pillow's ``precompute_coeffs`` and
    ``normalize_coeffs_8bpc`` (src/libImaging/Resample.c).
    """
    scale = old / new
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    count = math.ceil(support) * 2 + 1
    first = torch.zeros(new, dtype=torch.int64)
    weights = torch.zeros(new, count, dtype=torch.int32)
    for row in range(new):
        centre = (row + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        end = min(int(centre + support + 0.5), old)
        raw = [_bicubic((place - centre + 0.5) * (1.0 / stretch)) for place in range(start, end)]
        total = 0.0
        for value in raw:
            total += value
        first[row] = start
        fixed = [value / total * (1 << _FRACTION_BITS) for value in raw]
        weights[row, : len(raw)] = torch.tensor([int(value + math.copysign(0.5, value)) for value in fixed])
    used = int(weights.ne(0).any(0).nonzero().max()) + 1
    return first, weights[:, :used].contiguous()


def _bicubic(distance: float) -> float:
    """Keys's cubic filter with a = -0.5."""
    x = abs(distance)
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0
