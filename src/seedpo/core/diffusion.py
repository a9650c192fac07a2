"""Noise levels, forward noising, the three kinds of prediction, and classifier-free guidance.

x_t = sqrt(alpha_cumprod_t) x_0 + sqrt(1 - alpha_cumprod_t) noise (DDPM, arXiv 2006.11239, eq. 4). Time steps are
diffusers' integers: larger is noisier, a negative one is the clean image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from seedpo.core.types import Conditioning

PredictionType = Literal["epsilon", "v_prediction", "sample"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]

Predict = Callable[[Tensor, Tensor, Conditioning], Tensor]
"""A denoiser: latents (B, C, H, W), time steps (B,) int64 and embedded prompts to the raw prediction (B, C, H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSchedule:
    """Noise levels of a trained model and how its sampler walks through them, in diffusers' words.

    Attributes:
        alphas_cumprod: share of signal variance at each time step, (T,), in [0, 1], falling. The coefficients of a
            step are computed in this precision (float32 as in diffusers; float64 for reference computations).
        final_alpha_cumprod: the same for the clean image; ``alphas_cumprod[0]`` where diffusers has
            ``set_alpha_to_one=False``.
        prediction_type: what the network predicts.
        timestep_spacing: which time steps a sampler of few steps visits.
        steps_offset: added to the time steps of ``leading``.
        clip_sample_range: the predicted clean latents are held in +- this; None: not clipped.
    """

    alphas_cumprod: Tensor
    final_alpha_cumprod: float = 1.0
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0
    clip_sample_range: float | None = None

    def __post_init__(self) -> None:
        """Refuses what no sampler can follow."""
        if self.alphas_cumprod.ndim != 1 or len(self.alphas_cumprod) == 0:
            raise ValueError(f"alphas_cumprod must have shape (T,), not {tuple(self.alphas_cumprod.shape)}")
        if self.prediction_type not in get_args(PredictionType):
            raise ValueError(f"prediction_type {self.prediction_type!r} is not one of {get_args(PredictionType)}")
        if self.timestep_spacing not in get_args(TimestepSpacing):
            raise ValueError(f"timestep_spacing {self.timestep_spacing!r} is not one of {get_args(TimestepSpacing)}")

    def __len__(self) -> int:
        """Number of training time steps T."""
        return len(self.alphas_cumprod)

    def timesteps(self, num_inference_steps: int) -> tuple[Tensor, Tensor]:
        """The time steps that a sampler visits, and where each step leads.

        As diffusers' ``DDIMScheduler``: a step leads to t - T // N, which is the next visited time step for ``leading``
        but not always for the two others. One deviation: for some N diffusers' ``trailing`` visits an extra time step
        -1, by rounding (N = 61 of T = 1000 gives 62); here there are N always.

        Args:
            num_inference_steps: N, from 1 to T.

        Returns:
            ``(timesteps, previous_timesteps)``, (N,) int64 each, descending; a negative one is the clean image.

        Raises:
            ValueError: if N is outside 1 to T or ``steps_offset`` moves the first step out of the schedule.
        """
        total, count = len(self), num_inference_steps
        if not 1 <= count <= total:
            raise ValueError(f"num_inference_steps = {count} must be from 1 to the model's {total} training steps")
        visited = torch.tensor(_GRIDS[self.timestep_spacing](total, count, self.steps_offset), dtype=torch.int64)
        if visited[0] >= total:
            raise ValueError(
                f"num_inference_steps = {count} with steps_offset = {self.steps_offset} starts at time step "
                f"{int(visited[0])}, but the model has {total}; take fewer steps"
            )
        return visited, visited - total // count

    def alpha_cumprod(self, timestep: Tensor) -> Tensor:
        """Share of signal variance at time steps (B,) int64: (B,), on their device; negative ones are clean images."""
        levels = self.alphas_cumprod.to(timestep.device)[timestep.clamp(min=0)]
        return torch.where(timestep >= 0, levels, torch.full_like(levels, self.final_alpha_cumprod))


def _leading(total: int, count: int, offset: int) -> list[int]:
    return [index * (total // count) + offset for index in reversed(range(count))]


def _trailing(total: int, count: int, offset: int) -> list[int]:
    stride = (total - total / count) - total  # as numpy's arange rounds it
    return [round(total + index * stride) - 1 for index in range(count)]


def _linspace(total: int, count: int, offset: int) -> list[int]:
    stride = (total - 1) / max(count - 1, 1)
    return [round(index * stride) for index in reversed(range(count))]


_GRIDS: dict[TimestepSpacing, Callable[[int, int, int], list[int]]] = {
    "leading": _leading,
    "trailing": _trailing,
    "linspace": _linspace,
}


def over_latents(values: Tensor) -> Tensor:
    """One value per row, (B,), shaped to multiply latents: (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def add_noise(latents: Tensor, noise: Tensor, timestep: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Noisy latents x_t = sqrt(alpha_cumprod) x_0 + sqrt(1 - alpha_cumprod) noise.

    Args:
        latents: clean latents x_0, (B, C, H, W).
        noise: standard normal, (B, C, H, W).
        timestep: (B,) int64.
        schedule: the noise levels.

    Returns:
        x_t, (B, C, H, W).
    """
    level = over_latents(schedule.alpha_cumprod(timestep))
    return level.sqrt() * latents + (1 - level).sqrt() * noise


def predicted_original(
    prediction: Tensor, latents: Tensor, alpha_cumprod: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The clean latents x_0 that a prediction stands for.

    epsilon: (x_t - sqrt(1 - alpha) p) / sqrt(alpha);  v_prediction: sqrt(alpha) x_t - sqrt(1 - alpha) p;  sample: p
    (DDIM, arXiv 2010.02502, eq. 9; v as in arXiv 2202.00512, app. D).

    Args:
        prediction: the network's output p, (B, C, H, W).
        latents: x_t, (B, C, H, W).
        alpha_cumprod: at the time step of ``latents``, (B,); above 0 for ``epsilon``.
        prediction_type: what p is.

    Returns:
        The predicted x_0, (B, C, H, W).
    """
    level = over_latents(alpha_cumprod)
    if prediction_type == "epsilon":
        return (latents - (1 - level).sqrt() * prediction) / level.sqrt()
    if prediction_type == "v_prediction":
        return level.sqrt() * latents - (1 - level).sqrt() * prediction
    return prediction


def predicted_noise(
    prediction: Tensor, latents: Tensor, alpha_cumprod: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The noise that a prediction stands for.

    epsilon: p;  v_prediction: sqrt(alpha) p + sqrt(1 - alpha) x_t;  sample: (x_t - sqrt(alpha) p) / sqrt(1 - alpha).

    Args:
        prediction: the network's output p, (B, C, H, W).
        latents: x_t, (B, C, H, W).
        alpha_cumprod: at the time step of ``latents``, (B,); below 1 for ``sample``.
        prediction_type: what p is.

    Returns:
        The predicted noise, (B, C, H, W).
    """
    level = over_latents(alpha_cumprod)
    if prediction_type == "epsilon":
        return prediction
    if prediction_type == "v_prediction":
        return level.sqrt() * prediction + (1 - level).sqrt() * latents
    return (latents - level.sqrt() * prediction) / (1 - level).sqrt()


def prediction_target(latents: Tensor, noise: Tensor, alpha_cumprod: Tensor, prediction_type: PredictionType) -> Tensor:
    """What a perfect network would predict, in its own terms.

    epsilon: noise;  v_prediction: sqrt(alpha) noise - sqrt(1 - alpha) x_0;  sample: x_0.

    Args:
        latents: clean latents x_0, (B, C, H, W).
        noise: the noise that was added, (B, C, H, W).
        alpha_cumprod: at the time step to which noise was added, (B,).
        prediction_type: what the network predicts.

    Returns:
        The target of the prediction, (B, C, H, W).
    """
    level = over_latents(alpha_cumprod)
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return level.sqrt() * noise - (1 - level).sqrt() * latents
    return latents


def guided_prediction(
    predict: Predict,
    latents: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    guidance_scale: float,
) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): p_negative + scale (p_positive - p_negative).

    One call of ``predict`` on 2B rows, the negative prompts first; at scale 1 one call on B rows, without them.

    Args:
        predict: the denoiser.
        latents: x_t, (B, C, H, W).
        timestep: (B,) int64.
        conditioning: the embedded prompts, B rows.
        negative_conditioning: the embedded negative prompts, B rows; may be None at scale 1.
        guidance_scale: 1 is no guidance.

    Returns:
        The guided prediction, (B, C, H, W).

    Raises:
        ValueError: if there are no negative prompts and the scale is not 1.
    """
    if guidance_scale == 1:
        return predict(latents, timestep, conditioning)
    if negative_conditioning is None:
        raise ValueError(
            f"guidance_scale = {guidance_scale} needs negative_conditioning; give it, or set the scale to 1"
        )
    both = Conditioning.cat([negative_conditioning, conditioning])
    negative, positive = predict(torch.cat([latents, latents]), torch.cat([timestep, timestep]), both).chunk(2)
    return negative + guidance_scale * (positive - negative)
