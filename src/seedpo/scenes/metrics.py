"""Metrics that only a world with known truth can offer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seedpo.metrics.records import Samples
from seedpo.scenes.oracle import Readings, read_images
from seedpo.scenes.taste import utility

UNIFORM_VARIANCE = 1.0 / 12.0
"""Variance of a free attribute in the data, whose range is scaled to [0, 1]."""


def readings(samples: Samples) -> Readings:
    """The oracle's readings of all images, (P K) rows."""
    return read_images(*samples.flat())


def _by_prompt(samples: Samples, values: Tensor) -> Tensor:
    return values.view(len(samples.prompts), -1, *values.shape[1:])


def mean_truth(samples: Samples) -> Tensor:
    """Mean true utility, (P,)."""
    read = samples.derive(readings)
    wrong = (~read.correct).sum(1).float()
    values = utility(vividness=read.vividness, wrong=wrong, residual=read.residual)
    return _by_prompt(samples, values).mean(1)


def share_correct(samples: Samples) -> Tensor:
    """Share of images with every named attribute right, (P,)."""
    correct = samples.derive(readings).correct.all(1).float()
    return _by_prompt(samples, correct).mean(1)


def mean_residual(samples: Samples) -> Tensor:
    """Mean distance to the nearest legitimate drawing, (P,)."""
    return _by_prompt(samples, samples.derive(readings).residual).mean(1)


def free_variances(samples: Samples, *, right: bool = False) -> Tensor:
    """Variance of each free attribute over a prompt's images relative to the data's, (P, 5) in the order of ``FREE``.

    The variance is unbiased, over the images in which the attribute can be read; NaN if there are fewer than two.

    Args:
        samples: images and prompts.
        right: whether to leave out images with a wrong named attribute.
    """
    read = samples.derive(readings)
    free = _by_prompt(samples, read.free)
    known = ~torch.isnan(free)
    if right:
        known &= _by_prompt(samples, read.correct.all(1))[..., None]
    count = known.sum(1)
    mean = torch.where(known, free, 0.0).sum(1) / count.clamp(min=1)
    squares = torch.where(known, (free - mean[:, None]).square(), 0.0).sum(1)
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), math.nan) / UNIFORM_VARIANCE


def mean_free_variance(samples: Samples) -> Tensor:
    """Relative variance averaged over the free attributes, (P,)."""
    return torch.nanmean(free_variances(samples), 1)


def mean_right_variance(samples: Samples) -> Tensor:
    """The same over images with every named attribute right, (P,); NaN if there are fewer than two."""
    return torch.nanmean(free_variances(samples, right=True), 1)
