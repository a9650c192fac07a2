"""Statistics of single images, averaged over those of a prompt: neither good nor bad, but they reveal drift.

All of them see images as 8-bit files hold them: values in [0, 1] are rounded to 0, 1, ..., 255 first. Luminance is
that of ITU-R BT.601, Y = 0.299 R + 0.587 G + 0.114 B.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seedpo.metrics.records import Samples

EDGE = 0.1
"""Least gradient of an edge, in luminance per pixel: that of a step of 0.2 from one area to another."""


def luminance_entropy(images: Tensor) -> Tensor:
    """Shannon entropy of the histogram of luminance, rounded to 256 levels: (B,) in [0, 8] bits.

    Args:
        images: (B, 3, H, W) in 0, 1, ..., 255, float64.
    """
    levels = luminance(images).round().long().flatten(1)
    counts = torch.zeros(len(levels), 256, dtype=torch.float64).scatter_add_(
        1, levels, torch.ones_like(levels).double()
    )
    entropy: Tensor = torch.special.entr(counts / levels.shape[1]).sum(1) / math.log(2.0)
    return entropy


def luminance_deviation(images: Tensor) -> Tensor:
    """Standard deviation of luminance over the pixels, (B,) in [0, 0.5]; see :func:`luminance_entropy`.

    RMS contrast (Peli 1990, JOSA A 7(10)), not divided by the mean.
    """
    return (luminance(images) / 255.0).flatten(1).std(1, correction=0)


def colourfulness(images: Tensor) -> Tensor:
    """Hasler and Suesstrunk (2003), "Measuring colourfulness in natural images", their third measure, (B,).

        M = sqrt(s_rg^2 + s_yb^2) + 0.3 sqrt(m_rg^2 + m_yb^2),    rg = R - G,    yb = (R + G)/2 - B

    with means m and population standard deviations s over the pixels, and R, G, B from 0 to 255. The authors' viewers
    found 0 not colourful, 15 slightly, 33 moderately, 45 averagely, 59 quite, 82 highly and 109 extremely so.
    """
    red, green, blue = images.flatten(2).unbind(1)
    opponents = torch.stack([red - green, 0.5 * (red + green) - blue], 1)
    spread = opponents.var(2, correction=0).sum(1).sqrt()
    return spread + 0.3 * opponents.mean(2).square().sum(1).sqrt()


def edge_share(images: Tensor) -> Tensor:
    """Share of pixels whose gradient of luminance is longer than 0.1 per pixel, (B,) in [0, 1].

    The gradient is that of the Sobel operator divided by 8: of a ramp it is the slope, of a step from one area to
    another half its height. Pixels on the border have no gradient and are left out. An image of fewer than 3 rows or
    columns has no edges.
    """
    light = luminance(images) / 255.0
    if min(light.shape[1:]) < 3:
        return light.new_zeros(len(light))
    down = (light[:, 2:] - light[:, :-2]) / 2.0
    across = (light[:, :, 2:] - light[:, :, :-2]) / 2.0
    gradient = torch.hypot(_smoothed(down, 2), _smoothed(across, 1))
    return (gradient > EDGE).double().flatten(1).mean(1)


def luminance(images: Tensor) -> Tensor:
    """Y (B, H, W) of images (B, 3, H, W), in their unit."""
    return torch.einsum("bchw,c->bhw", images, images.new_tensor([0.299, 0.587, 0.114]))


def _smoothed(values: Tensor, dim: int) -> Tensor:
    """Means with weights 1/4, 1/2, 1/4 along a dimension, which loses both ends."""
    length = values.shape[dim] - 2
    first, middle, last = (values.narrow(dim, start, length) for start in range(3))
    return (first + 2.0 * middle + last) / 4.0


def mean_over_images(statistic: Callable[[Tensor], Tensor]) -> Callable[[Samples], Tensor]:
    """The mean of a statistic over the images of each prompt, (P,) float64."""

    def measured(samples: Samples) -> Tensor:
        # One prompt after another: float64 copies of all images at once would take eight times their memory.
        return torch.stack([statistic(_as_bytes(images)).mean() for images in samples.images])

    return measured


def _as_bytes(images: Tensor) -> Tensor:
    return (images.detach().double().cpu() * 255.0).round().clamp(0.0, 255.0)


# What the rows of the catalogue name: one value per prompt of samples.
mean_entropy = mean_over_images(luminance_entropy)
mean_contrast = mean_over_images(luminance_deviation)
mean_colourfulness = mean_over_images(colourfulness)
mean_edge_share = mean_over_images(edge_share)
