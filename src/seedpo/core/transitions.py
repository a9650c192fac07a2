"""One denoising step as a Gaussian, and the two log-probabilities that preferences compare.

The standard deviation of a step does not depend on the network, so an explicit penalty on its entropy would have no
gradient.

Sums over latent dimensions are accumulated in float64 where the device has it: a log-probability at 512 px is of order
1e4 while the differences that matter are of order 1e-2, fewer digits than float32 keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seedpo.core.types import TensorRows

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True, kw_only=True)
class Gaussian(TensorRows):
    """The distribution of the next, less noisy latents.

    Attributes:
        mean: (B, ...).
        std: one per row, (B,); 0 where the step is deterministic.
    """

    mean: Tensor
    std: Tensor


def over_latents(values: Tensor, latents: Tensor) -> Tensor:
    """One value per row, (B,), shaped to multiply latents (B, ...): (B, 1, ..., 1)."""
    return values.view(-1, *[1] * (latents.ndim - 1))


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, in nats, summed over the latent dimensions.

        log p = -|x - mean|^2 / (2 std^2) - D (log std + log(2 pi) / 2)

    Args:
        x: (B, ...), D values in a row.
        mean: (B, ...).
        std: one per row, (B,), above 0: a deterministic step has no density. It is not checked here, since a look at
            the values would make a GPU wait; :attr:`seedpo.core.sampling.Sampler.has_density` tells which steps have
            one.

    Returns:
        (B,), float64 (float32 on devices without it).
    """
    distance = _reduce(((x - mean) / over_latents(std, x)).square(), "sum")
    dimensions = math.prod(x.shape[1:])
    return -0.5 * distance - dimensions * (std.to(distance.dtype).log() + 0.5 * math.log(2 * math.pi))


def drawn_log_prob(step: Gaussian, drawn: Tensor) -> Tensor:
    """Log-density of what was drawn from steps, under the network that drew it.

    Args:
        step: the Gaussians of B rows.
        drawn: the next latents, (B, ...).

    Returns:
        (B,), in nats, summed over the latent dimensions, float64 (float32 on devices without it). NaN where the step
        is deterministic and has no density.
    """
    random = step.std > 0
    log_prob = gaussian_log_prob(drawn, step.mean, torch.where(random, step.std, torch.ones_like(step.std)))
    return log_prob.masked_fill(~random, torch.nan)


def squared_distance(values: Tensor, others: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """|values - others|^2 of each row, (B,), float64 where the device has it; ``mean``: over the entries of a row."""
    return _reduce((values - others).square(), reduction)


def gaussian_kl(step: Gaussian, other: Gaussian, *, reduction: Reduction) -> Tensor:
    """KL(step || other) of Gaussians of equal deviations: |mean - other mean|^2 / (2 std^2), in nats.

    It is symmetric, and infinite between different deterministic steps.

    Args:
        step: B steps.
        other: as many, with the same standard deviations.
        reduction: ``sum`` is the divergence, ``mean`` its share of one entry of the latents.

    Returns:
        (B,), float64 (float32 on devices without it).
    """
    distance = squared_distance(step.mean, other.mean, reduction=reduction)
    return distance / (2 * step.std.to(distance.dtype).square())


def scaled_square(log_prob: Tensor, std: Tensor, dimensions: int) -> Tensor:
    """-|x - mean|^2 = 2 std^2 (log p + D (log std + log(2 pi) / 2)), which CPS's published code calls log p.

    Args:
        log_prob: :func:`gaussian_log_prob`, (B,).
        std: of the steps, (B,).
        dimensions: D.

    Returns:
        (B,), of the type of ``log_prob``.
    """
    std = std.to(log_prob.dtype)
    return 2 * std.square() * (log_prob + dimensions * (std.log() + 0.5 * math.log(2 * math.pi)))


def noise_log_prob(prediction: Tensor, target: Tensor, *, reduction: Reduction) -> Tensor:
    """Diffusion-DPO's surrogate of log p(x_0), up to a constant that cancels: -|target - prediction|^2 / 2.

    With ``mean`` the preference loss at a = b = beta is the official -log sigma(-beta/2 (model_diff - ref_diff)) of
    arXiv 2311.12908 (eq. 14, with T omega folded into beta), whose published betas are 2000 to 5000.

    Args:
        prediction: the network's output, (B, ...).
        target: :meth:`seedpo.core.processes.Process.target`, (B, ...).
        reduction: ``sum`` or ``mean`` over the latent dimensions.

    Returns:
        (B,), float64 (float32 on devices without it).
    """
    wide = torch.promote_types(target.dtype, torch.float32)
    return -0.5 * _reduce((target.to(wide) - prediction).square(), reduction)


def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices without it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Sum or mean of (B, ...) over all but the rows, accumulated in float64 where the device has it."""
    rows = values.flatten(1)
    wide = widest_dtype(values.device)
    return rows.sum(1, dtype=wide) if reduction == "sum" else rows.mean(1, dtype=wide)
