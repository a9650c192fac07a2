"""One denoising step as a Gaussian, and the two log-probabilities that preferences compare.

The step x_t -> x_{t-1} of DDIM with noise (arXiv 2010.02502, eq. 12 and 16) is a Gaussian whose standard deviation does
not depend on the network, so that an explicit penalty on its entropy would have no gradient.

Sums over latent dimensions are accumulated in float64 where the device has it: a log-probability at 512 px is of order
1e4 while the differences that matter are of order 1e-2, fewer digits than float32 keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seedpo.core.diffusion import NoiseSchedule, over_latents, predicted_noise, predicted_original
from seedpo.core.types import TensorRows

Reduction = Literal["sum", "mean"]


@dataclass(frozen=True, kw_only=True)
class Transition(TensorRows):
    """The Gaussian from which x_{t-1} is drawn.

    Attributes:
        mean: (B, C, H, W).
        std: one per row, (B,); 0 where the step is deterministic.
    """

    mean: Tensor
    std: Tensor


def ddim_transition(
    prediction: Tensor,
    latents: Tensor,
    timestep: Tensor,
    previous_timestep: Tensor,
    schedule: NoiseSchedule,
    *,
    eta: float,
) -> Transition:
    """One DDIM step (arXiv 2010.02502, eq. 12 and 16), as diffusers' ``DDIMScheduler.step`` computes it.

        std  = eta sqrt((1 - alpha_prev) / (1 - alpha)) sqrt(1 - alpha / alpha_prev)
        mean = sqrt(alpha_prev) x0 + sqrt(1 - alpha_prev - std^2) noise

    with x0 and noise as predicted at x_t and x0 clipped to ``schedule.clip_sample_range`` (the noise is not recomputed
    from the clipped x0, as in diffusers). Where rounding makes 1 - alpha_prev - std^2 negative, it is taken as 0
    (diffusers gives NaN).

    Args:
        prediction: the network's output, guided where guidance is used, (B, C, H, W).
        latents: x_t, (B, C, H, W).
        timestep: t of each row, (B,) int64.
        previous_timestep: where the step leads, (B,) int64; negative: the clean image.
        schedule: noise levels and the kind of prediction.
        eta: in [0, 1]; 0 is deterministic, 1 the ancestral sampler.

    Returns:
        The step's Gaussian, in the wider precision of ``latents`` and ``schedule.alphas_cumprod``.

    Raises:
        ValueError: if ``eta`` is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} must be from 0 (deterministic) to 1 (ancestral)")
    level, previous_level = (
        schedule.alpha_cumprod(steps.to(latents.device)) for steps in (timestep, previous_timestep)
    )
    original = predicted_original(prediction, latents, level, schedule.prediction_type)
    noise = predicted_noise(prediction, latents, level, schedule.prediction_type)
    if schedule.clip_sample_range is not None:
        original = original.clamp(-schedule.clip_sample_range, schedule.clip_sample_range)
    std = _std(level, previous_level, eta)
    direction = over_latents((1 - previous_level - std.square()).clamp(min=0).sqrt()) * noise
    mean = over_latents(previous_level.sqrt()) * original + direction
    return Transition(mean=mean, std=std)


def ddim_std(timestep: Tensor, previous_timestep: Tensor, schedule: NoiseSchedule, *, eta: float) -> Tensor:
    """Standard deviation of DDIM steps, which depends on the schedule alone; 0 where a step is deterministic.

    Args:
        timestep: t of each row, (B,) int64.
        previous_timestep: where the step leads, (B,) int64; negative: the clean image.
        schedule: noise levels.
        eta: in [0, 1].

    Returns:
        (B,).
    """
    return _std(schedule.alpha_cumprod(timestep), schedule.alpha_cumprod(previous_timestep), eta)


def _std(level: Tensor, previous_level: Tensor, eta: float) -> Tensor:
    return eta * ((1 - previous_level) / (1 - level) * (1 - level / previous_level)).sqrt()


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of a diagonal Gaussian, in nats, summed over the latent dimensions.

        log p = -|x - mean|^2 / (2 std^2) - D (log std + log(2 pi) / 2)

    Args:
        x: (B, C, H, W), D = C H W.
        mean: (B, C, H, W).
        std: one per row, (B,), above 0.

    Returns:
        (B,), float64 (float32 on devices without it).

    Raises:
        ValueError: if a standard deviation is not above 0: such a step has no density.
    """
    if not bool((std > 0).all()):
        raise ValueError(
            "the last deterministic step has no density (its standard deviation is 0); leave it out or set eta above 0"
        )
    distance = _reduce(((x - mean) / over_latents(std)).square(), "sum")
    dimensions = math.prod(x.shape[1:])
    return -0.5 * distance - dimensions * (std.to(distance.dtype).log() + 0.5 * math.log(2 * math.pi))


def noise_log_prob(prediction: Tensor, target: Tensor, *, reduction: Reduction) -> Tensor:
    """Diffusion-DPO's surrogate of log p(x_0), up to a constant that cancels: -|target - prediction|^2 / 2.

    With ``mean`` the preference loss at a = b = beta is the official -log sigma(-beta/2 (model_diff - ref_diff)) of
    arXiv 2311.12908 (eq. 14, with T omega folded into beta), whose published betas are 2000 to 5000.

    Args:
        prediction: the network's output, (B, C, H, W).
        target: :func:`seedpo.core.diffusion.prediction_target`, (B, C, H, W).
        reduction: ``sum`` or ``mean`` over the latent dimensions.

    Returns:
        (B,), float64 (float32 on devices without it).
    """
    wide = torch.promote_types(target.dtype, torch.float32)
    return -0.5 * _reduce((target.to(wide) - prediction).square(), reduction)


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    """Sum or mean of (B, C, H, W) over all but the rows, accumulated in float64 where the device has it."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    rows = values.flatten(1)
    return rows.sum(1, dtype=wide) if reduction == "sum" else rows.mean(1, dtype=wide)
